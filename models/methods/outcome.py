"""What a method leaves behind: the network that is evaluated, how dense it is by which count, and what it costs."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from autosparse.models.masks import mask as masks
from autosparse.models.masks.mask import Mask
from autosparse.models.methods.contract import Parts
from autosparse.models.networks.flops import training_macs


def own_tensors(network: nn.Module, parts: Parts) -> set[str]:
    """Names of the tensors that a method gates, shrinks or masks, while its parts are attached to the network."""
    names = {
        f"{name}.{tensor}".lstrip(".")
        for name, module in network.named_modules()
        if parametrize.is_parametrized(module)
        for tensor in module.parametrizations  # type: ignore[union-attr]
    }
    return names | (set(parts.schedule.mask) if parts.schedule else set())


def replaced(parts: Parts) -> list[str]:
    """What of the training, or of the network after it, the parts replace or add, in words."""
    words = {
        "transforms": parts.transforms,
        "gradient": parts.gradient,
        "mask schedule": parts.schedule,
        "controllers": parts.controllers,
        "optimizer": parts.optimizer,
        "own optimizers": parts.own,
        "step wrapper": parts.wrapper,
        "rewrite": parts.rewrite,
    }
    return [word for word, part in words.items() if part]


def bake(network: nn.Module, parts: Parts) -> nn.Module:
    """The network without its transforms, in place: what was attached last goes first."""
    for transform in reversed(parts.transforms):
        transform.bake(network)
    return network


def nonzero(network: nn.Module, *, head: bool) -> Mask:
    """The prunable weights that are not exactly zero, as a mask."""
    return {name: param.detach() != 0 for name, param in masks.prunable(network, head=head).items()}


def densities(evaluated: nn.Module, plain: nn.Module, *, head: bool, own: Iterable[str] = ()) -> dict[str, float | None]:
    """Parameters of `evaluated` that are not exactly zero, as shares of those that `plain` has room for, by three counts.

    `kept_density`: of weights of convolutions and linear layers, without the classifier where `head` is False; `density_all`: of all
    parameters, biases and norms included; `density_own`: of the tensors in `own`, None without any. `plain` is the network as it
    was trained, `evaluated` the same or a smaller one made of it.
    """
    found, room = dict(evaluated.named_parameters()), dict(plain.named_parameters())
    weights, mine = masks.prunable(plain, head=head), [name for name in own if name in room]
    return {
        "kept_density": _share(found, room, weights),
        "density_all": _share(found, room, room),
        "density_own": _share(found, room, mine) if mine else None,
    }


def inference_macs(network: nn.Module, macs: Mapping[str, int], metered: Mapping[str, float] | None = None) -> float:
    """Multiply-adds per image if weights that are exactly zero cost nothing; `macs` of `flops.forward_macs`, dense and per layer.

    Layers in `metered` cost what stands there instead: a rewrite that counts for itself.
    """
    params, known = dict(network.named_parameters()), metered or {}
    return sum(known[name] if name in known else count * _density(params.get(name)) for name, count in macs.items())


def step_macs(macs: Mapping[str, int], mask: Mask | None) -> float:
    """Multiply-adds per image of one training step, forward and backward, if masked weights cost nothing; dense without a mask."""
    return training_macs(macs, masks.layer_densities(mask) if mask else None)


def finite(facts: Mapping[str, float]) -> dict[str, float]:
    """The facts that are numbers: neither JSON nor MLflow takes NaN and infinities."""
    return {name: float(value) for name, value in facts.items() if abs(float(value)) < float("inf")}


def _share(found: Mapping[str, Tensor], room: Mapping[str, Tensor], names: Iterable[str]) -> float:
    chosen = list(names)
    kept = sum(int(torch.count_nonzero(found[name].detach())) for name in chosen if name in found)
    return kept / sum(room[name].numel() for name in chosen)


def _density(weight: Tensor | None) -> float:
    return 1.0 if weight is None else int(torch.count_nonzero(weight.detach())) / weight.numel()
