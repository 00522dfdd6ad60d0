"""Gates on a network: logits from a source, squashed to factors, multiplied onto weights; baked away at the end.

A filter's gate scales what the layer hands on: weight and bias of the BatchNorm behind it, else its own. A weight's gate scales that
weight. All gates of a network are one vector, computed once per forward pass; the network's state dict has its source.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from autosparse.models.masks import mask as masks
from autosparse.models.methods import hard_concrete
from autosparse.models.methods.channel_groups import ChannelGroup


class Squash(Protocol):
    """From logits to gates, elementwise; `random` says whether it uses noise."""

    random: bool

    def gates(self, logits: Tensor, noise: Tensor | None) -> Tensor:
        """Factors in [0, 1]; without noise those of eval mode."""
        ...

    def openness(self, logits: Tensor) -> Tensor:
        """What an open gate counts in the expected cost."""
        ...


class HardConcrete(nn.Module):
    """Random gates, and P(gate > 0) as their cost."""

    random = True

    def gates(self, logits: Tensor, noise: Tensor | None) -> Tensor:
        return hard_concrete.median(logits) if noise is None else hard_concrete.sample(logits, noise)

    def openness(self, logits: Tensor) -> Tensor:
        return hard_concrete.open_probability(logits)


class FreeLogits(nn.Module):
    """One trained number per gate."""

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(values)

    def forward(self) -> Tensor:
        return self.logits


class GateBank(nn.Module):
    """All gates of a network in groups of `sizes`: `source()` gives their logits (sum of sizes,), `squash` what they are worth."""

    def __init__(self, source: nn.Module, squash: Squash, sizes: Sequence[int]) -> None:
        super().__init__()
        self.source, self.sizes = source, list(sizes)
        self.squash: Any = squash
        self.noise: Tensor
        self.register_buffer("noise", torch.zeros(sum(sizes)), persistent=False)
        self._current: Sequence[Tensor] | None = None

    def forward(self) -> tuple[Tensor, ...]:
        """The factors of each group: by the noise of `draw` in train mode, without any in eval mode."""
        return self.squash.gates(self.source(), self.noise if self.training else None).split(self.sizes)

    def draw(self, generator: torch.Generator) -> None:
        """New noise for one training step, the same on every rank."""
        if self.squash.random:
            self.noise.copy_(hard_concrete.noise(len(self.noise), generator))

    def openness(self) -> tuple[Tensor, ...]:
        """What the open gates of each group count; differentiable."""
        return self.squash.openness(self.source()).split(self.sizes)

    @torch.no_grad()
    def alive(self) -> tuple[Tensor, ...]:
        """For each group 1 where the gate of eval mode is above 0, and 0 where it is 0."""
        return (self.squash.gates(self.source(), None) > 0).float().split(self.sizes)

    def factor(self, group: int) -> Tensor:
        """The factors of one group, out of this forward pass where one is under way."""
        return (self._current or self())[group]

    def before_forward(self, *unused: Any) -> None:
        """A hook: many parameters ask for factors, which are computed once."""
        self._current = self()

    def after_forward(self, *unused: Any) -> None:
        """A hook: nothing of a pass outlives it, so that no graph is walked twice and copies find no graph."""
        self._current = None


class Gated(nn.Module):
    """The parametrization of one tensor: each of its rows, or each element, times its gate."""

    def __init__(self, bank: GateBank, group: int, *, carries: bool) -> None:
        super().__init__()
        self.group = group
        self.carried = bank if carries else None  # one place has the bank in its state dict, the others point to it
        self._bank = (bank,)

    @property
    def bank(self) -> GateBank:
        return self._bank[0]

    def forward(self, original: Tensor) -> Tensor:
        factor = self.bank.factor(self.group)
        rows = factor.numel() == original.shape[0]
        return original * factor.view(-1, *[1] * (original.dim() - 1)) if rows else original * factor.view(original.shape)


@dataclass(frozen=True)
class Place:
    """A tensor of a module that is multiplied with a group of gates."""

    module: str
    tensor: str
    group: int


def filter_places(network: nn.Module, groups: Sequence[ChannelGroup]) -> list[Place]:
    """Where the gates of channel groups act."""
    modules, places = dict(network.named_modules()), []
    for index, group in enumerate(groups):
        for site in group.sites:
            name = site.norm or site.layer
            tensors = ("weight", "bias") if getattr(modules[name], "bias", None) is not None else ("weight",)
            places += [Place(name, tensor, index) for tensor in tensors]
    return places


def weight_places(network: nn.Module, *, head: bool) -> list[Place]:
    """Every prunable layer with one gate per weight."""
    names = masks.prunable(network, head=head)
    return [Place(name.rpartition(".")[0], "weight", index) for index, name in enumerate(names)]


class Gates:
    """The transform: a bank attached to `places` of a network. `groups` are those whose channels die with their gates."""

    def __init__(self, network: nn.Module, bank: GateBank, places: Sequence[Place], groups: Sequence[ChannelGroup] = ()) -> None:
        self.bank, self._places, self._groups = bank, places, groups
        bank.to(next(network.parameters()).device).train(network.training)
        for index, place in enumerate(places):
            gated = Gated(bank, place.group, carries=not index).train(network.training)
            parametrize.register_parametrization(network.get_submodule(place.module), place.tensor, gated)
        network.register_forward_pre_hook(bank.before_forward)
        network.register_forward_hook(bank.after_forward, always_call=True)

    def sample(self, generator: torch.Generator) -> None:
        """Draw the noise of one training step."""
        self.bank.draw(generator)

    @torch.no_grad()
    def bake(self, network: nn.Module) -> None:
        """Multiply the gates of eval mode in, for good: into the network or a copy of it.

        Weights that only a dead channel had are set to zero, so that counting weights that are not zero counts what is left.
        """
        modules: dict[str, Any] = {place.module: network.get_submodule(place.module) for place in self._places}
        bank: GateBank = modules[self._places[0].module].parametrizations[self._places[0].tensor][0].bank  # of a copy: its own
        alive = bank.alive()
        mode, bank.training = bank.training, False
        values = {place: getattr(modules[place.module], place.tensor).clone() for place in self._places}
        bank.training = mode
        for name, module in modules.items():
            _plain(module, {place.tensor: value for place, value in values.items() if place.module == name})
        for hooks in (network._forward_pre_hooks, network._forward_hooks, network._forward_hooks_always_called):
            for key in [key for key, hook in hooks.items() if _of_a_bank(hook)]:
                del hooks[key]
        for group, keep in zip(self._groups, alive, strict=False):
            clear(network, group, keep.bool())


@torch.no_grad()
def clear(network: nn.Module, group: ChannelGroup, keep: Tensor) -> None:
    """Zero the weights into and out of the channels of a group outside `keep` (size,), which nothing else depends on."""
    for site in group.sites:
        _weight(network, site.layer)[~keep] = 0
    for reader in group.readers:
        weight = _weight(network, reader)
        weight[:, ~keep.repeat_interleave(weight.shape[1] // group.size)] = 0


def _weight(network: nn.Module, layer: str) -> Tensor:
    weight = network.get_submodule(layer).weight
    assert isinstance(weight, Tensor)
    return weight


def _plain(module: Any, values: dict[str, Tensor]) -> None:
    """Take the parametrizations off and set the parameters to `values`, weight before bias as ever.

    Not by `parametrize.remove_parametrizations`, which changes the class, and a copy of the module has the same class.
    """
    parameters = {name: values.get(name, getattr(module, name)) for name in ("weight", "bias")}
    kept = {name: module.parametrizations[name].original for name in values}
    kept |= dict(module.named_parameters(recurse=False))
    plain = parametrize.type_before_parametrizations(module)
    del module.parametrizations
    module.__class__ = plain
    for name, value in parameters.items():
        if value is not None:
            if name in module._parameters:
                delattr(module, name)
            module.register_parameter(name, kept[name])
            kept[name].copy_(value)


def _of_a_bank(hook: Any) -> bool:
    return isinstance(getattr(hook, "__self__", None), GateBank)


def attach_to_filters(
    network: nn.Module, groups: Sequence[ChannelGroup], source: Callable[[Sequence[int]], nn.Module], squash: Squash
) -> Gates:
    """One gate per channel of `groups`; `source` makes the logits of groups of these sizes."""
    sizes = [group.size for group in groups]
    return Gates(network, GateBank(source(sizes), squash, sizes), filter_places(network, groups), groups)
