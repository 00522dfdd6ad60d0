"""What is refused of a mask, and what is said of it."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from autosparse.library.mask_file import some
from autosparse.models.errors import SpecError, not_allowed
from autosparse.models.networks.wrappers import plain


class MaskWarning(UserWarning):
    """Something about a mask that is not wrong, but should not go unnoticed."""


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


def zeros_and_ones(name: str, keep: Tensor) -> Tensor:
    """A bool tensor from zeros and ones of any dtype. Raises SpecError, which names the parameter, for anything else."""
    if not isinstance(keep, Tensor):
        raise not_allowed(f"mask: {name}", type(keep).__name__, "a tensor of zeros and ones")
    if keep.dtype != torch.bool and (odd := keep[(keep != 0) & (keep != 1)]).numel():
        raise not_allowed(f"mask: {name}", odd.flatten()[0].item(), "0 and 1")
    return keep.detach().bool()
