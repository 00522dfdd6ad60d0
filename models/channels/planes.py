"""Planes of channel ids beside tensors, and what the functions of torch do with channels, by name."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from autosparse.models.channels.ledger import FIXED

CONVOLUTIONS = {"conv1d": 1, "conv2d": 2, "conv3d": 3}
TRANSPOSED = {"conv_transpose1d": 1, "conv_transpose2d": 2, "conv_transpose3d": 3}
UNARY = {
    *("relu", "relu6", "leaky_relu", "elu", "celu", "selu", "gelu", "silu", "mish", "hardswish", "hardsigmoid", "hardtanh", "sigmoid"),
    *("tanh", "softplus", "logsigmoid", "exp", "sqrt", "rsqrt", "abs", "neg", "pow", "square", "clamp", "clip", "reciprocal"),
    *("threshold", "softsign", "tanhshrink", "hardshrink", "softshrink", "rrelu", "sin", "cos", "log1p", "expm1", "erf", "sign"),
    *("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout", "feature_dropout"),
    *("contiguous", "clone", "detach", "to", "float", "double", "half", "bfloat16", "type", "type_as", "requires_grad", "cpu", "cuda"),
}
SUMS = {"add", "iadd", "radd", "sub", "isub", "rsub", "subtract"}
PRODUCTS = {"mul", "imul", "rmul", "multiply", "div", "truediv", "itruediv", "divide"}
MOVES = {
    *("view", "reshape", "flatten", "unflatten", "permute", "transpose", "swapaxes", "swapdims", "movedim", "moveaxis", "squeeze"),
    *("unsqueeze", "chunk", "tensor_split", "unbind", "getitem", "narrow", "select", "split", "split_with_sizes", "index_select", "cat"),
    *("concat", "concatenate", "stack", "roll", "flip", "expand", "expand_as", "view_as", "reshape_as", "get", "t", "repeat", "tile"),
}
# by positions that may be written into the code
PICKS = {"getitem", "narrow", "select", "split", "split_with_sizes", "index_select", "unbind", "repeat", "tile"}
RESHAPES = {"view", "reshape", "unflatten", "chunk", "tensor_split"}  # may have sizes written into the code
NORMS = {"batch_norm", "instance_norm", "prelu"}  # one number per channel in each of their tensors
POOLS = {
    *(f"{kind}_pool{dims}d" for kind in ("max", "avg", "adaptive_avg", "adaptive_max", "lp") for dims in (1, 2, 3)),
    *("interpolate", "upsample", "pad"),
}
REDUCTIONS = {"mean", "sum", "amax", "amin"}
FILLED = ("empty", "zeros", "ones", "full")
NEW = {f"new_{what}" for what in FILLED} | {f"{what}_like" for what in (*FILLED, "rand", "randn")}


def plane_of(tensor: Tensor) -> Tensor | None:
    """The plane beside a tensor, None where no channel of it is followed."""
    return getattr(tensor, "_channels", None)


def put(tensor: Tensor, plane: Tensor | None) -> None:
    """Put a plane beside a tensor."""
    tensor._channels = plane  # pyright: ignore[reportAttributeAccessIssue]


def along(ids: Tensor, tensor: Tensor, axis: int) -> Tensor:
    """The plane of `tensor` whose channels (size,) lie along an axis."""
    shape = [1] * tensor.dim()
    shape[axis] = -1
    return compressed(ids.view(shape))


def full(tensor: Tensor) -> Tensor:
    """The ids (shape of the tensor) of all elements of a tensor."""
    plane = plane_of(tensor)
    whole = torch.full((1,) * tensor.dim(), FIXED) if plane is None else plane
    return whole.expand(tensor.shape).contiguous()


def widened(plane: Tensor | None, tensor: Tensor, dims: int) -> Tensor:
    """The plane of a tensor with as many axes as a result that it is broadcast to."""
    whole = torch.full((1,) * tensor.dim(), FIXED) if plane is None else plane
    return whole.reshape((1,) * (dims - tensor.dim()) + tuple(whole.shape))


def compressed(plane: Tensor) -> Tensor:
    """A plane, 1 long on every axis along which it is the same."""
    for axis, size in enumerate(plane.shape):
        if size > 1 and torch.equal(plane, plane.narrow(axis, 0, 1).expand_as(plane)):
            plane = plane.narrow(axis, 0, 1)
    return plane


def ids_in(*planes: Tensor) -> set[int]:
    """The ids in planes."""
    return set(torch.cat([plane.flatten() for plane in planes]).unique().tolist())


def argument(args: Any, kwargs: Any, index: int, name: str) -> Any:
    """An argument of a function of torch, by position or by name."""
    return args[index] if len(args) > index else kwargs.get(name)


def is_index(tensor: Tensor) -> bool:
    """Whether a tensor among arguments says which elements, not what is in them."""
    return not tensor.is_floating_point() and plane_of(tensor) is None


def unpadded(name: str, args: Any, kwargs: Any) -> bool:
    """Whether a convolution reads nothing but its input: no zeros around it."""
    padding = argument(args, kwargs, 4, "padding") or 0
    return name in CONVOLUTIONS and (padding == "valid" or not any(padding if isinstance(padding, list | tuple) else [padding]))


def swapped(value: Any, by: Mapping[int, Tensor]) -> Any:
    """Arguments with tensors replaced, by their Python id."""
    if isinstance(value, Tensor):
        return by[id(value)] if id(value) in by else value.cpu()
    if isinstance(value, Mapping):
        return {key: swapped(item, by) for key, item in value.items()}
    return type(value)(swapped(item, by) for item in value) if type(value) in (list, tuple) else value
