"""A mask as a thing: what it keeps, where it comes from, its file, and its ways to and from torch's own pruning and sparse tensors."""

import warnings
from collections.abc import Mapping
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

import autosparse
from autosparse.library.mask_checks import MaskWarning, check_fits, zeros_and_ones
from autosparse.library.mask_file import About, Shape, read_mask, some, weights_digest, write_mask, write_weights
from autosparse.library.mask_table import Text, layer_table, outside_lines
from autosparse.library.torch_formats import dead_rows, read_torch_prune, set_torch_prune, sparse_matrix
from autosparse.models.errors import DataError, SpecError, not_allowed
from autosparse.models.masks import gates
from autosparse.models.masks import mask as masks
from autosparse.models.masks.prunable import prunable
from autosparse.models.networks import flops
from autosparse.models.networks.calls import Inputs, fitted, one_of
from autosparse.models.networks.wrappers import plain


class Change(NamedTuple):
    """A number of the dense network and of the masked one."""

    before: int
    after: int


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
        mask = cls({name: zeros_and_ones(name, keep) for name, keep in tensors.items()})
        versions = {"autosparse": autosparse.__version__, "torch": str(torch.__version__)}
        mask.about = About(method=method, density=density, seed=seed, versions=versions)
        if network is not None:
            check_fits(mask, network)
            digest = weights_digest(dict(plain(network).named_parameters()), mask)
            kind = type(plain(network)).__name__
            mask.about = replace(mask.about, network=kind, weights=digest, outside=mask._outside(network))
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

    def parameters(self, network: nn.Module | None = None) -> Change:
        """Parameters of the whole network and what is left of them. Raises SpecError where neither mask nor call knows the network."""
        outside = sum(map(prod, self._outside(network).values()))
        return Change(self.total + outside, self.kept + outside)

    def macs(self, network: nn.Module, example: Inputs) -> Change:
        """Multiply-adds of a forward pass on `example`, dense and if masked weights cost nothing (`models/networks/flops.py`)."""
        check_fits(self, network)
        counts = flops.macs(plain(network), fitted(plain(network), example))
        shares = {flops.weight_name(name): share for name, share in self.layer_densities().items()}
        return Change(sum(counts.values()), round(sum(count * shares.get(name, 1.0) for name, count in counts.items())))

    def effective(self, network: nn.Module, example: Tensor) -> Self:
        """The kept weights that lie on a path from the input to the output (`models/masks/gates.py`); `example` is a batch of inputs."""
        check_fits(self, network)
        return type(self)(gates.effective(plain(network), self, tuple(example.shape[1:])), self.about)

    def effective_density(self, network: nn.Module, example: Tensor) -> float:
        """Effective / all weights of the mask."""
        return self.effective(network, example).density

    def dead_channels(self, network: nn.Module, example: Tensor) -> dict[str, int]:
        """By layer: how many of its output channels (rows of a matrix) have no effective weight."""
        return dead_rows(plain(network), self.effective(network, example))

    def summary(self, network: nn.Module | None = None, example: Inputs | None = None) -> Text:
        """Per layer: shape, kept weights, density; then what stays dense, and how much of the network that is.

        With the network and an example (a batch of inputs) also multiply-adds, before and after.
        """
        counts = None
        if network is not None and example is not None:
            counts = flops.macs(plain(network), fitted(plain(network), one_of(example)))
        lines = layer_table(self, counts)
        if network is not None or self.about.outside is not None:
            lines += outside_lines(self._outside(network), self.total, self.about.left_out)
        if network is not None and example is not None:
            before, after = self.macs(network, one_of(example))
            lines.append(f"multiply-adds of one example: {before:,} -> {after:,} ({after / max(before, 1):.2%})")
        return Text("\n".join([*lines, *(f"note: {note}" for note in self.about.notes)]))

    def _outside(self, network: nn.Module | None) -> Mapping[str, Shape]:
        if network is not None:
            check_fits(self, network)
            return {name: tuple(param.shape) for name, param in plain(network).named_parameters() if name not in self}
        if self.about.outside is None:
            raise not_allowed("network", None, "the network, which this mask was made without")
        return self.about.outside

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
            mask = cls({name: zeros_and_ones(name, keep) for name, keep in tensors.items()}, about)
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
        check_fits(self, model)
        set_torch_prune(plain(model), self)

    @classmethod
    def from_torch_prune(cls, model: nn.Module, *, remove: bool = False) -> Self:
        """The mask of what torch.nn.utils.prune pruned, under the names of the parameters as they are (`weight_orig`).

        With `remove`, torch's pruning is taken off (`prune.remove`) and the names are those of the plain weights. Raises SpecError
        where nothing was pruned.
        """
        return cls.of(read_torch_prune(plain(model), remove=remove), model, method="torch.nn.utils.prune")

    @torch.no_grad()
    def sparse(self, model: nn.Module, layout: torch.layout = torch.sparse_csr) -> dict[str, Tensor]:
        """The kept weights of the model as sparse matrices, by name: the first dimension by all others.

        Exactly the kept weights are stored, also those that happen to be zero. `layout` is sparse_coo, sparse_csr or sparse_csc.
        Raises SpecError for other layouts and for a mask of another network.
        """
        check_fits(self, network := plain(model))
        return {name: sparse_matrix(network.get_parameter(name), keep, layout) for name, keep in self.items()}
