"""Gradients estimated by forward-mode differentiation alone, with local losses or of the whole loss (Ren et al. 2023)."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import functional_call
from torch.nn import functional

from autosparse.models import seeding
from autosparse.models.errors import not_allowed
from autosparse.models.masks.mask import CONVOLUTIONS
from autosparse.models.methods.contract import Method, Parts, Settings, Setup
from autosparse.models.networks.calls import logits_of
from autosparse.models.networks.local_mixer import LAYERS, LocalMixer, MixerBlock

PERTURBED = (*CONVOLUTIONS, nn.Linear, nn.LayerNorm, nn.GroupNorm)
HEADS = "local_heads"


@dataclass(frozen=True, kw_only=True, slots=True)
class ForwardGradient(Settings):
    """`lg_fg_a`: activations perturbed, a loss per block, patch and group; `lg_bp`: the same losses by backpropagation. Both need a
    local mixer. `fg_a`: outputs of layers perturbed; `fg_w`: weights perturbed; `backprop`: no estimate, for comparison.
    """

    estimator: Literal["lg_fg_a", "lg_bp", "fg_a", "fg_w", "backprop"] = "lg_fg_a"


def normal(like: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal numbers from a CPU generator, with the shape, type, device and memory layout of `like`."""
    return torch.empty_like(like).copy_(torch.randn(like.shape, generator=generator))


@contextmanager
def forward_mode() -> Iterator[None]:
    """Inside, tangents are carried along and nothing is recorded for a way back."""
    _load_formulas()
    with torch.no_grad(), forward_ad.dual_level():
        yield


@cache
def _load_formulas() -> None:
    with warnings.catch_warnings(), forward_ad.dual_level():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch compiles some of its own formulas by torch.jit at first use
        forward_ad.make_dual(torch.zeros(1), torch.zeros(1))


# ---- the whole loss -----------------------------------------------------------------------------------------------------------


def slope(network: nn.Module, images: Tensor, labels: Tensor, tangents: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Mean cross entropy and its derivative along `tangents`, a direction per parameter by name, in one forward pass."""
    with forward_mode():
        moved = {name: forward_ad.make_dual(param.detach(), tangents[name]) for name, param in network.named_parameters()}
        loss = functional.cross_entropy(logits_of(functional_call(network, moved, (images,))), labels)
        primal, tangent = forward_ad.unpack_dual(loss)
        return primal, torch.zeros_like(primal) if tangent is None else tangent


def perturb_weights(network: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
    """FG-W: `.grad` = (derivative of the loss along v) v, v normal, one for the batch; the mean loss."""
    tangents = {name: normal(param.detach(), generator) for name, param in network.named_parameters()}
    loss, along = slope(network, images, labels, tangents)
    for name, param in network.named_parameters():
        param.grad = tangents[name].mul_(along)
    return loss


def perturb_outputs(network: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
    """FG-A: each layer's outputs get normal noise u, per example and call; the derivative of an example's loss times u stands for
    the gradient of the outputs, from which that of the layer's parameters is exact. The mean loss.

    Noise of units that a later ReLU cuts off is not taken out, since what follows a layer is not known here.
    """
    calls: list[tuple[nn.Module, Tensor, Tensor]] = []

    def perturb(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        primal, noise = forward_ad.unpack_dual(inputs[0]).primal, normal(forward_ad.unpack_dual(output).primal, generator)
        calls.append((module, primal, noise))
        return output + forward_ad.make_dual(torch.zeros_like(noise), noise)

    hooks = [module.register_forward_hook(perturb) for module in network.modules() if isinstance(module, PERTURBED)]
    try:
        with forward_mode():
            losses = functional.cross_entropy(logits_of(network(images)), labels, reduction="none")
            primal, along = forward_ad.unpack_dual(losses)
            assert along is not None
    finally:
        for hook in hooks:
            hook.remove()
    for module, inputs, noise in calls:
        module(inputs.detach()).backward(noise * along.view(-1, *[1] * (noise.dim() - 1)) / len(labels))
    return primal.mean()


# ---- a loss per block, patch and group ----------------------------------------------------------------------------------------


class LocalHeads(nn.Module):
    """A linear classifier for each block but the last, which has the network's; a transform that is gone after `bake`.

    They are plain parameters, no linear layers: the method's own and never prunable.
    """

    def __init__(self, network: LocalMixer, generator: torch.Generator) -> None:
        super().__init__()
        classes, width = network.head.weight.shape
        drawn = [torch.randn(classes, width, generator=generator) * width**-0.5 for _ in network.blocks[1:]]
        self.weights = nn.ParameterList(weight.to(network.head.weight) for weight in drawn)
        self.biases = nn.ParameterList(torch.zeros_like(network.head.bias) for _ in drawn)

    def sample(self, generator: torch.Generator) -> None:
        """Nothing is drawn."""

    def bake(self, network: nn.Module) -> None:
        """Take the classifiers of the blocks off the network."""
        delattr(network, HEADS)


def readouts(network: LocalMixer) -> list[tuple[Tensor, Tensor]]:
    """Weight (classes, width) and bias of each block's classifier, the last of them the network's."""
    heads: LocalHeads = getattr(network, HEADS)
    return [*zip(heads.weights, heads.biases, strict=True), (network.head.weight, network.head.bias)]


def local_tangents(tangent: Tensor, slopes: Tensor, weight: Tensor, groups: int) -> Tensor:
    """Derivatives (n, patches, groups) of the local losses along a block's output's `tangent` (n, patches, width).

    The loss of patch p and group g is the cross entropy of a classifier on the mean over patches, where everything but the
    output of p and g is held fixed: one value, and a tangent each, that is <(softmax - one hot) W, tangent> over the group /
    patches. `slopes`: softmax - one hot, (n, classes).
    """
    pulled = (slopes @ weight).unflatten(1, (groups, -1))
    return torch.einsum("ngc,npgc->npg", pulled, tangent.unflatten(2, (groups, -1))) / tangent.shape[1]


def draw_noise(network: LocalMixer, patches: Tensor, generator: torch.Generator) -> list[list[Tensor]]:
    """Normal noise (n, patches, channels) for the three layers of each block."""
    rows, blocks = patches[..., :1], [block for block in network.blocks if isinstance(block, MixerBlock)]
    sizes = [(block.channels.in_features, block.channels.out_features, block.channels.out_features) for block in blocks]
    return [[normal(rows.expand(-1, -1, size), generator).contiguous() for size in three] for three in sizes]


def perturb_locally(network: LocalMixer, images: Tensor, labels: Tensor, noise: Sequence[Sequence[Tensor]]) -> Tensor:
    """LG-FG-A: adds to `.grad` of a local mixer what `noise` on the normalised preactivations says; the last block's mean loss.

    The derivative of the own local loss times the noise, where the ReLU is open, stands for the gradient of a normalised
    preactivation; the layer that the token noise is in sums over the groups. From there the gradient of the layer is exact, and so
    is that of the classifiers. Block outputs are fixed inputs of the next block.
    """
    loss, now = torch.zeros(()), network.patches(images)
    for block, (weight, bias), three in zip(network.blocks, readouts(network), noise, strict=True):
        assert isinstance(block, MixerBlock)
        with forward_mode():
            moved = block.trace(now, [forward_ad.make_dual(torch.zeros_like(part), part) for part in three])
            now, tangent = forward_ad.unpack_dual(moved[0])
            inputs = [forward_ad.unpack_dual(part).primal for part in moved[1]]
            assert tangent is not None
        logits = functional.linear(now.mean(1), weight, bias)
        loss = functional.cross_entropy(logits, labels)
        loss.backward()
        slopes = logits.detach().softmax(1) - functional.one_hot(labels, logits.shape[1])
        along = local_tangents(tangent, slopes, weight.detach(), block.groups)
        for layer in range(LAYERS):
            _fill_layer(block, layer, inputs[layer], along / len(labels), three[layer])
    return loss.detach()


def _fill_layer(block: MixerBlock, layer: int, inputs: Tensor, along: Tensor, noise: Tensor) -> None:
    outputs = block.preactivation(layer, inputs)
    own = along.sum(2, keepdim=True) if layer == 0 else along.repeat_interleave(noise.shape[2] // block.groups, dim=2)
    gradient = noise * own
    outputs.backward(gradient * (outputs > 0) if layer < LAYERS - 1 else gradient)


def backpropagate_locally(network: LocalMixer, images: Tensor, labels: Tensor) -> Tensor:
    """LG-BP: the gradients that `perturb_locally` estimates, added to `.grad`; the last block's mean loss."""
    loss, now = torch.zeros(()), network.patches(images)
    for block, (weight, bias) in zip(network.blocks, readouts(network), strict=True):
        now = block(now.detach())
        loss = functional.cross_entropy(functional.linear(now.mean(1), weight, bias), labels)
        loss.backward()
    return loss.detach()


# ---- the method ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Estimates:
    """The gradient source of one estimator. Ranks draw the same noise, each for its own images, and take the mean."""

    settings: ForwardGradient

    def fill(self, network: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Write `.grad` of every parameter; the mean loss of the batch, detached."""
        for param in network.parameters():
            param.grad = None
        loss = self._fill(network, images, labels, generator)
        for param in network.parameters():
            if param.grad is None:
                param.grad = torch.zeros_like(param)
            if dist.is_initialized() and dist.get_world_size() > 1:
                dist.all_reduce(param.grad)
                param.grad /= dist.get_world_size()
        return loss.detach()

    def _fill(self, network: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        if self.settings.estimator == "fg_w":
            return perturb_weights(network, images, labels, generator)
        if self.settings.estimator == "fg_a":
            return perturb_outputs(network, images, labels, generator)
        if self.settings.estimator == "backprop":
            loss = functional.cross_entropy(logits_of(network(images)), labels)
            loss.backward()
            return loss
        assert isinstance(network, LocalMixer)
        if self.settings.estimator == "lg_bp":
            return backpropagate_locally(network, images, labels)
        return perturb_locally(network, images, labels, draw_noise(network, network.patches(images), generator))


def _refuses(setup: Setup, settings: ForwardGradient) -> str | None:
    network, name = setup.network, type(setup.network).__name__
    if settings.estimator.startswith("lg_") and not isinstance(network, LocalMixer):
        return str(not_allowed("network", name, f"local-mixer for {settings.estimator}; estimator=fg_w takes any network"))
    if settings.estimator == "fg_a":
        plain = [param for module in network.modules() if isinstance(module, PERTURBED) for param in module.parameters()]
        if len(plain) < len(list(network.parameters())):
            allowed = "a network with parameters in convolutions, linear layers, LayerNorm and GroupNorm alone for fg_a"
            return str(not_allowed("network", name, allowed))
    return None


def _parts(setup: Setup, settings: ForwardGradient) -> Parts:
    source = Estimates(settings)
    if not isinstance(setup.network, LocalMixer) or not settings.estimator.startswith("lg_"):
        return Parts(gradient=source)
    heads = LocalHeads(setup.network, seeding.generator(setup.seed, "method", "heads"))
    setattr(setup.network, HEADS, heads)
    return Parts(gradient=source, transforms=[heads])


FWDGRAD = Method(
    settings=ForwardGradient,
    levels=(ForwardGradient(),),
    by_density=False,
    parts=_parts,
    refuses=_refuses,
    card=(
        "Not sparse: a gradient estimate. Estimators, local losses, aggregation and what stays exact (classifiers, layer norms) as in "
        "the paper; the network is a miniature of its mixer with norms within groups, so that no local loss hangs on another group. "
        "fg_a leaves noise on closed ReLU units. One forward pass per batch for all tangents."
    ),
)
