"""A mask as a thing: what it keeps, where it comes from, its file, and its ways to and from torch's own pruning and sparse tensors."""

import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter
from torch.nn.utils import prune as torch_prune

import autosparse
from autosparse.library.mask_file import About, read_mask, some, weights_digest, write_mask, write_weights
from autosparse.models.errors import DataError, SpecError, not_allowed
from autosparse.models.masks import mask as masks
from autosparse.models.masks.prunable import prunable
from autosparse.models.networks.wrappers import plain

SPARSE = (torch.sparse_coo, torch.sparse_csr, torch.sparse_csc)


class MaskWarning(UserWarning):
    """Something about a mask that is not wrong, but should not go unnoticed."""


class Text(str):
    """A text that shows its lines, where a prompt or a notebook would show a string with quotes."""

    __repr__ = str.__str__


class Mask(dict[str, Tensor]):
    """Parameter name -> bool tensor of the parameter's shape, True = kept; `about` says where it comes from.

    Names are those of the plain network, without wrappers around it. It can be pickled and copied as any dict.
    """

    about: About

    def __init__(self, tensors: Mapping[str, Tensor], about: About | None = None) -> None:
        for name, keep in tensors.items():
            if not isinstance(keep, Tensor) or keep.dtype != torch.bool:
                kind = str(keep.dtype) if isinstance(keep, Tensor) else type(keep).__name__
                raise not_allowed(f"mask: {name}", kind, "a bool tensor; Mask.of takes zeros and ones of any kind")
        super().__init__(tensors)
        self.about = about or About()

    @classmethod
    def of(
        cls,
        tensors: Mapping[str, Tensor],
        network: nn.Module | None = None,
        *,
        method: str | None = None,
        density: float | None = None,
        seed: int | None = None,
    ) -> Self:
        """A mask from zeros and ones of any dtype.

        With `network`, whose weights must still be those the mask was made for, it also knows what stays dense and to which weights it
        belongs. Raises SpecError for other values than 0 and 1, and for a mask that does not fit the network.
        """
        mask = cls({name: _bool(name, keep) for name, keep in tensors.items()})
        versions = {"autosparse": autosparse.__version__, "torch": str(torch.__version__)}
        mask.about = About(method=method, density=density, seed=seed, versions=versions)
        if network is not None:
            check_fits(mask, network)
            network = plain(network)
            parameters = dict(network.named_parameters())
            outside = {name: tuple(param.shape) for name, param in parameters.items() if name not in mask}
            digest = weights_digest(parameters, mask)
            mask.about = replace(mask.about, network=type(network).__name__, weights=digest, outside=outside)
        return mask

    @property
    def kept(self) -> int:
        """Number of kept weights."""
        return masks.kept(self)

    @property
    def total(self) -> int:
        """Number of weights in the mask."""
        return masks.total(self)

    @property
    def density(self) -> float:
        """Kept / all weights of the mask; `about.density` is what was asked for."""
        return masks.density(self)

    @property
    def checksum(self) -> str:
        """Sixteen hex digits over names, shapes and bits; the same on any device and for any order of names."""
        return masks.checksum(self)

    def layer_densities(self) -> dict[str, float]:
        """Kept / all weights of each layer."""
        return masks.layer_densities(self)

    def collapsed_layers(self) -> list[str]:
        """Layers without a kept weight."""
        return masks.collapsed_layers(self)

    def overlap(self, other: Mapping[str, Tensor]) -> float:
        """Share of the weights kept by `other` that this mask keeps too. Raises SpecError for masks of other networks."""
        unlike = [name for name in {**self, **other} if name not in self or name not in other or self[name].shape != other[name].shape]
        if unlike:
            raise not_allowed("other", some(unlike), "a mask with the same names and shapes")
        return masks.overlap(self, {name: keep.to(self[name].device) for name, keep in other.items()})

    def to(self, device: torch.device | str) -> Self:
        """The same mask on a device."""
        return type(self)({name: keep.to(device) for name, keep in self.items()}, self.about)

    def __repr__(self) -> str:
        made = f", {self.about.method}" if self.about.method else ""
        return (
            f"Mask({self.kept:,} of {self.total:,} weights in {len(self)} layers, density {self.density:.4g}{made})" if self else "Mask({})"
        )

    def save(self, path: str | Path, weights: nn.Module | Mapping[str, Tensor] | None = None) -> None:
        """Write the mask as safetensors: names, shapes, bits and `about`.

        With `weights`, the network or its state dict, those are written beside it (`initial_weights` reads them): a mask at
        initialization belongs to its initial weights. Raises SpecError for other weights than the mask was made for, DataError
        where a file cannot be written.
        """
        path, about = Path(path), self.about
        if weights is not None:
            state = plain(weights).state_dict() if isinstance(weights, nn.Module) else dict(weights)
            names = [*self, *(about.outside or {})]
            if missing := [name for name in names if name not in state]:
                raise not_allowed("weights", f"without {some(missing)}", "the state dict of the mask's network")
            digest = weights_digest({name: state[name] for name in names}, self)
            if about.weights not in (None, digest):
                raise not_allowed("weights", f"digest {digest[:12]}", f"the weights that the mask was made for, {str(about.weights)[:12]}")
            write_weights(path, state)
        write_mask(path, self, about)

    @classmethod
    def load(cls, path: str | Path, model: nn.Module | None = None) -> Self:
        """Read a file of `save`, of `autosparse prune` or of a run; on the CPU.

        With `model`: raises SpecError, in one line, where the mask is one of another network, and warns (MaskWarning) where the network
        has neither the weights that the mask was made for nor zeros where it masks. Raises DataError for anything but a mask.
        """
        tensors, about = read_mask(Path(path))
        try:
            mask = cls({name: _bool(name, keep) for name, keep in tensors.items()}, about)
        except SpecError as error:
            raise DataError(f"{path}: not a mask file ({error})") from error
        if model is not None:
            mask._check_belongs(plain(model), str(path))
        return mask

    def _check_belongs(self, network: nn.Module, source: str) -> None:
        check_fits(self, network, source)
        parameters = dict(network.named_parameters())
        outside = self.about.outside
        if outside is not None and (unknown := [name for name in parameters if name not in self and name not in outside]):
            raise SpecError(f"{source}: a mask of another network is not allowed; allowed: one that knows of {some(unknown)}")
        if outside is None and (unpruned := [name for name in prunable(network) if name not in self]):
            warnings.warn(f"{source}: the mask says nothing of {some(unpruned)}; they stay dense", MaskWarning, stacklevel=3)
        if self.about.weights not in (None, weights_digest(parameters, self)) and masks.violations(network, self):
            text = f"{source}: the network has other weights than the mask was made for"
            warnings.warn(f"{text}; initial_weights(path) reads those that were saved beside it", MaskWarning, stacklevel=3)

    def to_torch_prune(self, model: nn.Module) -> None:
        """Prune the model by the mask with torch.nn.utils.prune (`custom_from_mask`): its own hooks hold it, its state dict gets new keys.

        Raises SpecError for a mask of another network and for a weight that is reparametrized in another way.
        """
        network = plain(model)
        check_fits(self, network)
        for name, keep in self.items():
            owner, _, leaf = name.rpartition(".")
            module, leaf = network.get_submodule(owner), leaf.removesuffix("_orig")
            plain_weight = leaf in module._parameters or f"{leaf}_mask" in module._buffers
            if not plain_weight or leaf.startswith("original") or leaf.endswith("_v"):
                raise not_allowed("mask", name, "a plain weight; torch.nn.utils.prune cannot prune a reparametrized one")
            torch_prune.custom_from_mask(module, leaf, keep.to(next(module.parameters()).device))

    @classmethod
    def from_torch_prune(cls, model: nn.Module, *, remove: bool = False) -> Self:
        """The mask of what torch.nn.utils.prune pruned, under the names of the parameters as they are (`weight_orig`).

        With `remove`, torch's pruning is taken off (`prune.remove`) and the names are those of the plain weights. Raises SpecError
        where nothing was pruned.
        """
        found: dict[str, Tensor] = {}
        for prefix, module in plain(model).named_modules():
            for name in [name.removesuffix("_orig") for name in module._parameters if name.endswith("_orig")]:
                if (keep := module._buffers.get(f"{name}_mask")) is not None:
                    found[f"{prefix}.{name if remove else name + '_orig'}".lstrip(".")] = keep.clone()
                    if remove:
                        torch_prune.remove(module, name)
        if not found:
            raise not_allowed("model", type(plain(model)).__name__, "a network that torch.nn.utils.prune has pruned")
        return cls.of(found, plain(model), method="torch.nn.utils.prune")

    @torch.no_grad()
    def sparse(self, model: nn.Module, layout: torch.layout = torch.sparse_csr) -> dict[str, Tensor]:
        """The kept weights of the model as sparse matrices, by name: the first dimension by all others.

        Exactly the kept weights are stored, also those that happen to be zero. `layout` is sparse_coo, sparse_csr or sparse_csc.
        Raises SpecError for other layouts and for a mask of another network.
        """
        if layout not in SPARSE:
            raise not_allowed("layout", layout, ", ".join(map(str, SPARSE)))
        check_fits(self, network := plain(model))
        return {name: _sparse(network.get_parameter(name), keep, layout) for name, keep in self.items()}


def check_fits(mask: Mapping[str, Tensor], model: nn.Module, source: str = "mask") -> None:
    """Raise SpecError, one line for all that differs, unless each name of the mask is a parameter of that shape in the plain network."""
    params: dict[str, Any] = dict(plain(model).named_parameters(remove_duplicate=False))
    if lazy := [name for name in mask if isinstance(params.get(name), UninitializedParameter)]:
        raise not_allowed("model", some(lazy), "parameters with a shape; run one batch through a lazy network first")
    missing = [name for name in mask if name not in params]
    shapes = [
        f"{name} {tuple(keep.shape)} against {tuple(params[name].shape)}"
        for name, keep in mask.items()
        if name in params and params[name].shape != keep.shape
    ]
    said = [f"the network has no {some(missing)}"] if missing else []
    said += [f"shapes differ: {some(shapes)}"] if shapes else []
    if said:
        raise SpecError(f"{source}: a mask of another network is not allowed; {'; '.join(said)}")


def _bool(name: str, keep: Tensor) -> Tensor:
    if not isinstance(keep, Tensor):
        raise not_allowed(f"mask: {name}", type(keep).__name__, "a tensor of zeros and ones")
    if keep.dtype != torch.bool and (odd := keep[(keep != 0) & (keep != 1)]).numel():
        raise not_allowed(f"mask: {name}", odd.flatten()[0].item(), "0 and 1")
    return keep.detach().bool()


def _sparse(weight: Tensor, keep: Tensor, layout: torch.layout) -> Tensor:
    matrix, kept = weight.reshape(len(weight), -1), keep.to(weight.device).reshape(len(weight), -1)
    found = torch.sparse_coo_tensor(kept.nonzero().T, matrix[kept], matrix.shape, is_coalesced=True, check_invariants=True)
    if layout is torch.sparse_coo:
        return found
    return found.to_sparse_csr() if layout is torch.sparse_csr else found.to_sparse_csc()
