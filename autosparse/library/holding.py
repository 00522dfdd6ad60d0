"""Zeros that stay zeros, in anybody's training loop.

Three things hold a parameter. Its gradient is masked as soon as it is accumulated, so clipping, momentum and second moments see the
masked gradient. After each step of any torch optimizer that trains it, its masked entries are zero again, whatever the step did.
And weights that are loaded into the network are masked at once. The keys of the state dict stay what they are.

The parameters keep their identity and the optimizer needs no wrapper, so the order of `hold` and everything else is free: before
or after the optimizer, DistributedDataParallel, `torch.compile` or an EMA copy. A deep copy of the network, or a pickled one, has the
zeros but is not held; an averaged copy that starts from it stays at zero, because it averages zeros. Hold does not keep a network alive.

Cost: the bits of each mask in the width of its parameter (4 bytes per weight in float32), and two passes over the weights per step.
"""

import warnings
import weakref
from collections.abc import Mapping
from functools import cache

from torch import Tensor, nn
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook

from autosparse.library.held_parameter import Place
from autosparse.library.mask import Mask
from autosparse.library.mask_checks import MaskWarning, check_fits
from autosparse.library.mask_file import some
from autosparse.models.channels.dead import dead_channel_parameters
from autosparse.models.errors import SpecError, not_allowed
from autosparse.models.networks.calls import Inputs
from autosparse.models.networks.wrappers import plain

_HELD: "weakref.WeakSet[Held]" = weakref.WeakSet()


def hold(model: nn.Module, mask: Mapping[str, Tensor], optimizer: Optimizer | None = None, *, example: Inputs | None = None) -> "Held":
    """Set the masked entries of the parameters to zero, now and after every step of any optimizer, until `release`.

    `mask` may name any parameters of the network, biases and norms too, by the names of the plain network. `optimizer` need not be
    given: with it, what it remembers is masked now, and an optimizer that trains no parameter of the mask is refused. Raises SpecError
    also for a mask of another network and for parameters that are held already.

    With an `example` (a batch of inputs) the biases and norms of channels that the mask cuts off are held at zero as well: then
    `compact` gives the same function at any time.

    An optimizer that is not derived from torch's needs `held.apply()` after its step. Parameters that are sharded over
    devices (FSDP, tensor parallel) are refused.
    """
    network, checked = plain(model), mask if isinstance(mask, Mask) else Mask.of(mask)
    check_fits(checked, network)
    if example is not None:
        checked = with_dead_channels(network, checked, example)
    for other in _of(network):
        if both := other.names & checked.keys():
            raise not_allowed("mask", min(both), "a parameter that is not held already; autosparse.release(model) lets go of them")
    if optimizer is not None:
        trained = _trained(optimizer)
        if not any(id(param) in trained for name, param in network.named_parameters(remove_duplicate=False) if name in checked):
            raise not_allowed("optimizer", type(optimizer).__name__, "an optimizer that trains parameters of the mask")
    held = Held(network, checked)
    if optimizer is not None:
        held.after_step(optimizer)
    return held


def release(model: nn.Module) -> None:
    """Let go of everything that is held of the network. Its weights stay as they are; nothing happens where nothing is held."""
    for held in _of(plain(model)):
        held.release()


def with_dead_channels(network: nn.Module, mask: Mapping[str, Tensor], example: Inputs) -> Mask:
    """The mask, and the weights, biases and norms of the channels that it cuts off."""
    dead = dead_channel_parameters(network, dict(mask), example)
    names = [*mask, *(name for name in dead if name not in mask)]
    return Mask({name: mask.get(name, ~dead[name]) & ~dead[name] if name in dead else mask[name] for name in names})


class Held:
    """What `hold` returns: let go by `release()`, or at the end of a `with`; it may be dropped, the network stays held."""

    def __init__(self, network: nn.Module, mask: Mapping[str, Tensor]) -> None:
        self._network = weakref.ref(network)
        self._places = {name: Place(name, keep, network) for name, keep in mask.items() if not keep.all()}
        self._optimizers: weakref.WeakKeyDictionary[Optimizer, tuple[list[int], list[Place]]] = weakref.WeakKeyDictionary()
        for place in self._places.values():
            place.bind(network.get_submodule(place.owner), _AfterLoading(self))
        _HELD.add(self)
        _listen()

    @property
    def names(self) -> set[str]:
        """The parameters with entries that are held at zero."""
        return set(self._places)

    def apply(self) -> None:
        """Set the masked entries to zero now. Raises SpecError where a parameter is gone or has another shape."""
        self._bind(self._alive())
        for place in self._places.values():
            place.zero()

    def violations(self) -> int:
        """How many masked entries are not exactly zero in the network as it is now (NaN is not zero).

        Warns of parameters that were replaced since: those are held again from the next step of their optimizer on.
        """
        network = self._alive()
        current = {name: place.current(network) for name, place in self._places.items()}
        _say_replaced([name for name, place in self._places.items() if current[name] is not place.param])
        return sum(int(((param != 0) & self._places[name].bits.gone(param)).count_nonzero()) for name, param in current.items())

    def release(self) -> None:
        """Let go: from now on the masked entries train like all others. The second time nothing happens."""
        _HELD.discard(self)
        for place in self._places.values():
            place.let_go()

    def __enter__(self) -> "Held":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def __repr__(self) -> str:
        zeros = sum(int((place.bits.bits == 0).count_nonzero()) for place in self._places.values())
        return f"Held({zeros:,} entries at zero in {len(self._places)} parameters{'' if self in _HELD else ', released'})"

    def after_step(self, optimizer: Optimizer) -> None:
        """Mask what a step of the optimizer moved."""
        if (network := self._network()) is None:
            return
        trained = _trained(optimizer)
        known = self._optimizers.get(optimizer)
        if known is None or known[0] != trained:  # a new optimizer may have new parameters
            _say_replaced(self._bind(network))
            here = set(trained)
            known = trained, [place for place in self._places.values() if id(place.param) in here]
            self._optimizers[optimizer] = known
        for place in known[1]:
            place.zero()
            place.zero_state(optimizer.state.get(place.param, {}))

    def after_loading(self, module: nn.Module) -> None:
        """Mask the module's own parameters, which may be other objects than before."""
        for place in self._places.values():
            if place.module is not None and place.module() is module:
                place.bind(module, _AfterLoading(self))

    def _bind(self, network: nn.Module) -> list[str]:
        """Hold what stands in the network under the names now; those that were another parameter before."""
        replaced = []
        for name, place in self._places.items():
            if place.current(network) is not place.param:
                place.bind(network.get_submodule(place.owner), _AfterLoading(self))
                replaced.append(name)
        return replaced

    def _alive(self) -> nn.Module:
        if (network := self._network()) is None:
            raise SpecError("model: it was deleted; nothing is held any more")
        return network


class _AfterLoading:
    """The hook of a module that was loaded; a copy of the module, and a pickled one, has one that does nothing."""

    def __init__(self, held: Held | None = None) -> None:
        self.held = held

    def __call__(self, module: nn.Module, keys: object) -> None:
        if self.held is not None:
            self.held.after_loading(module)

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return _AfterLoading, ()


@cache
def _listen() -> None:
    """From now on see the steps of all optimizers; one hook for all, so that none is removed while torch goes through them."""
    register_optimizer_step_post_hook(_after_any_step)


def _after_any_step(optimizer: Optimizer, args: object, kwargs: object) -> None:
    for held in list(_HELD):
        held.after_step(optimizer)


def _trained(optimizer: Optimizer) -> list[int]:
    return [id(param) for group in optimizer.param_groups for param in group["params"]]


def _of(network: nn.Module) -> list[Held]:
    return [held for held in list(_HELD) if held._network() is network]


def _say_replaced(names: list[str]) -> None:
    if names:
        text = f"{some(names)}: replaced by another parameter since hold; the new one is held from its next step on"
        warnings.warn(text, MaskWarning, stacklevel=3)
