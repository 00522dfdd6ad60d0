"""Follows channels through one forward pass of any network.

Beside each tensor goes a plane: a tensor of channel ids that is 1 long on every axis along which all ids are the same. What only
moves values (view, permute, cat, chunk) moves ids in the same way, by the same function. Layers make new ids, additions and
products tie them; whatever is not known here ends them, so that nothing is removed that it could see.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from autosparse.models.channels.examples import tensors
from autosparse.models.channels.ledger import FIXED, Constant, Grouped, Ledger

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
PICKS = {
    "getitem",
    "narrow",
    "select",
    "split",
    "split_with_sizes",
    "index_select",
    "unbind",
    "repeat",
    "tile",
}  # by positions of their own
RESHAPES = {"view", "reshape", "unflatten", "chunk", "tensor_split"}  # may have sizes written into the code
NORMS = {"batch_norm", "instance_norm", "prelu"}  # one number per channel in each of their tensors
POOLS = {
    *(f"{kind}_pool{dims}d" for kind in ("max", "avg", "adaptive_avg", "adaptive_max", "lp") for dims in (1, 2, 3)),
    *("interpolate", "upsample", "pad"),
}
REDUCTIONS = {"mean", "sum", "amax", "amin"}


class Trace(TorchFunctionMode):
    """Inside, every function of torch writes into `ledger` what it does with channels.

    `kept` are bool masks of weights by name, true where a weight connects. With `strict` channels are not followed through
    reshapes and chunks, whose sizes may be written into the network's code.
    """

    def __init__(self, network: nn.Module, kept: Mapping[str, Tensor], ledger: Ledger, *, constants: bool, strict: bool = False) -> None:
        super().__init__()
        named = (*network.named_parameters(), *network.named_buffers())
        self._names = {id(tensor): name for name, tensor in named}
        self._kept, self._ledger, self._constants, self._strict = kept, ledger, constants, strict

    def __torch_function__(self, func: Callable[..., Any], types: Iterable[type], args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "").strip("_")
        inputs = list(tensors((args, kwargs)))
        followed = any(_plane(tensor) is not None for tensor in inputs) or any(id(tensor) in self._names for tensor in inputs)
        rule = self._rule(name) if followed else None
        before = rule(func, name, args, kwargs) if rule else None
        result = func(*args, **kwargs)
        if before is not None:
            before(result)
        elif followed and any(True for _ in tensors(result)) and not any(result is tensor for tensor in inputs):
            self._unknown(inputs)
        return result

    def finish(self, outputs: Any) -> None:
        """Everything that the network returns stays."""
        self._unknown(list(tensors(outputs)))

    def _rule(self, name: str) -> Callable[..., Callable[[Any], None] | None] | None:
        if name in CONVOLUTIONS or name in TRANSPOSED or name == "linear":
            return self._layer
        if name in NORMS:
            return self._norm
        if name in SUMS | PRODUCTS:
            return self._join
        table = {"layer_norm": self._over_last, "rms_norm": self._over_last, "group_norm": self._group_norm}
        for names, rule in ((UNARY, self._same), (MOVES, self._move), (POOLS, self._pool), (REDUCTIONS, self._reduce)):
            table |= dict.fromkeys(names, rule)
        return table.get(name)

    def _unknown(self, inputs: list[Tensor]) -> None:
        for tensor in inputs:
            plane = _plane(tensor)
            if plane is not None:
                self._ledger.end(plane.flatten())
            name = self._names.get(id(tensor))
            if name is not None:
                for axis, size in enumerate(tensor.shape):
                    self._ledger.use(name, axis, torch.full((size,), FIXED))

    def _line(self, tensor: Tensor, axis: int) -> Tensor:
        """The ids (size,) along an axis; fixed where they differ along another."""
        plane, axis = _plane(tensor), axis % tensor.dim()
        if plane is None or plane.numel() != plane.shape[axis]:
            if plane is not None:
                self._ledger.end(plane.flatten())
            return torch.full((tensor.shape[axis],), FIXED)
        return plane.flatten().expand(tensor.shape[axis])

    def _use(self, tensor: Tensor | None, axis: int, ids: Tensor) -> None:
        if tensor is None:
            return
        name = self._names.get(id(tensor))
        if name is None:
            self._ledger.end(ids)
        else:
            self._ledger.use(name, axis, ids)

    def _layer(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        values, weight = _argument(args, kwargs, 0, "input"), _argument(args, kwargs, 1, "weight")
        bias, groups = _argument(args, kwargs, 2, "bias"), 1
        axis = -1 if name == "linear" else -1 - (CONVOLUTIONS | TRANSPOSED)[name]
        if name != "linear":
            groups = _argument(args, kwargs, 7 if name in TRANSPOSED else 6, "groups") or 1
        key = self._names.get(id(weight))
        if key is None or (groups > 1 and name in TRANSPOSED):
            return None
        inputs = self._line(values, axis)
        kept = self._kept[key] if key in self._kept else torch.ones(weight.shape, dtype=torch.bool)
        connected = kept.cpu().flatten(2).any(2) if kept.dim() > 2 else kept.cpu()
        connected = connected.T if name in TRANSPOSED else connected
        outputs = self._grouped(key, inputs, connected, groups) if groups > 1 else self._ledger.mix(inputs, connected)
        if groups == 1:
            self._use(weight, 0 if name in TRANSPOSED else 1, inputs)
        self._use(weight, 1 if name in TRANSPOSED else 0, outputs)
        self._use(bias, 0, outputs)
        if self._constants:
            self._constant(key, values, axis, inputs, outputs, name == "linear" or (groups == 1 and _unpadded(name, args, kwargs)))
        return lambda result: _put(result, _along(outputs, result, axis))

    def _grouped(self, key: str, inputs: Tensor, connected: Tensor, groups: int) -> Tensor:
        """`connected` (outputs, inputs of a group)."""
        rows = connected.view(groups, -1, connected.shape[1])
        if connected.shape[1] == 1:
            sources = inputs.repeat_interleave(rows.shape[1])
            outputs = self._ledger.hand_on(sources, self._ledger.reached[sources] & connected[:, 0])
        else:
            outputs = self._ledger.mix(inputs, torch.block_diag(*rows.to(torch.uint8)).bool())
        known = self._ledger.groups.setdefault(key, Grouped(inputs.view(groups, -1), outputs.view(groups, -1)))
        self._ledger.tie(known.inputs.flatten(), inputs)
        return outputs

    def _constant(self, key: str, values: Tensor, axis: int, inputs: Tensor, outputs: Tensor, foldable: bool) -> None:
        if self._ledger.reached[inputs].all():
            return
        rows = values.detach().movedim(axis, 0).flatten(1)
        low, high = rows.amin(1), rows.amax(1)
        same = high - low <= 1e-6 * high.abs().clamp(min=1e-30)
        found = torch.where(same, high, torch.full_like(high, float("nan"))).cpu()
        self._ledger.constants.append(Constant(key, inputs, outputs, found, foldable))

    def _norm(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        values, *numbers = tensors((args, kwargs))
        if values.dim() < 2:
            return None
        ids = self._line(values, 1)
        for tensor in numbers:
            if tensor.numel() == len(ids):  # a PReLU may have one number for all
                self._use(tensor, 0, ids)
        return lambda result: _put(result, _along(ids, result, 1))

    def _over_last(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        values, shape = _argument(args, kwargs, 0, "input"), _argument(args, kwargs, 1, "normalized_shape")
        plane = _plane(values)
        if plane is None or any(size > 1 for size in plane.shape[-len(shape) :]):
            return None
        return lambda result: _put(result, plane)

    def _group_norm(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        values, groups = _argument(args, kwargs, 0, "input"), _argument(args, kwargs, 1, "num_groups")
        scale, shift = _argument(args, kwargs, 2, "weight"), _argument(args, kwargs, 3, "bias")
        key = self._names.get(id(scale))
        if key is None:
            return None
        inputs = self._line(values, 1)
        block = torch.ones(len(inputs) // groups, len(inputs) // groups, dtype=torch.uint8)
        outputs = self._ledger.mix(inputs, torch.block_diag(*[block] * groups).bool())
        self._ledger.tie(outputs, inputs)
        self._ledger.groups.setdefault(key, Grouped(outputs.view(groups, -1)))
        self._use(scale, 0, outputs)
        self._use(shift, 0, outputs)
        return lambda result: _put(result, _along(outputs, result, 1))

    def _same(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        plane = _plane(args[0] if args else kwargs["input"])
        others = [tensor for tensor in tensors((args[1:], kwargs)) if _plane(tensor) is not None]
        return None if plane is None or (others and name != "type_as") else lambda result: _put(result, plane)

    def _join(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        """Sums and products: tied along the axes on which channels differ, but for operands that are broadcast there."""
        operands = [value for value in (*args[:2], *kwargs.values()) if isinstance(value, Tensor)]
        planes = [self._plane_or_elements(tensor, operands) for tensor in operands]
        shape = torch.broadcast_shapes(*(tensor.shape for tensor in operands))
        wide = [_widened(plane, tensor, len(shape)) for plane, tensor in zip(planes, operands, strict=True)]
        varied = torch.broadcast_shapes(*(plane.shape for plane in wide))
        axes = [axis for axis, size in enumerate(varied) if size > 1]
        sizes = [(1,) * (len(shape) - tensor.dim()) + tuple(tensor.shape) for tensor in operands]
        parts = [index for index, size in enumerate(sizes) if any(size[axis] > 1 for axis in axes)]
        for index in set(range(len(operands))) - set(parts):
            self._ledger.end(wide[index].flatten())
        if not parts:
            return None
        sources = [wide[index].expand(varied) for index in parts]
        reached = torch.stack([self._ledger.reached[source] for source in sources]).any(0)
        if name in PRODUCTS:
            for index, source in zip(parts, sources, strict=True):
                reached = reached & ~self._zero(operands[index], source)
        outputs = self._ledger.hand_on(sources[0].flatten(), reached.flatten()).view(varied)
        for source in sources[1:]:
            self._ledger.also_from(outputs, source)
        return lambda result: _put(result, outputs)

    def _zero(self, tensor: Tensor, ids: Tensor) -> Tensor:
        """Which of `ids` hold zero whatever the input is: nothing reaches them, and they are zero now. Not so parameters, which train."""
        away = ~self._ledger.reached[ids]
        if not away.any() or id(tensor) in self._names:
            return torch.zeros_like(away)
        values = tensor.detach().abs().reshape((1,) * (ids.dim() - tensor.dim()) + tuple(tensor.shape))
        axes = [axis for axis, size in enumerate(ids.shape) if size == 1]
        return away & (values.amax(axes, keepdim=True) if axes else values).cpu().eq(0)

    def _plane_or_elements(self, tensor: Tensor, operands: list[Tensor]) -> Tensor | None:
        """The plane of an operand. A parameter beside channels has one id for each element, to be tied to theirs."""
        name = self._names.get(id(tensor))
        if name is None or not isinstance(tensor, nn.Parameter) or all(_plane(operand) is None for operand in operands):
            return _plane(tensor)
        if name not in self._ledger.elements:
            self._ledger.elements[name] = self._ledger.new(torch.zeros(tensor.shape, dtype=torch.bool))
        return self._ledger.elements[name]

    def _move(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        if name == "get" and getattr(func, "__self__", None) not in (Tensor.T, Tensor.mT, Tensor.data):
            return None
        sources = [(tensor, _plane(tensor)) for tensor in tensors((args, kwargs))]
        self._unknown([tensor for tensor, _ in sources if id(tensor) in self._names])
        if all(plane is None for _, plane in sources):
            return lambda result: None
        if self._strict and name in RESHAPES:
            return None
        full = {id(tensor): _full(tensor) for tensor, _ in sources if not _is_index(tensor)}
        moved = func(*_swapped(args, full), **_swapped(kwargs, full))
        parts = [moved] if isinstance(moved, Tensor) else list(moved)
        if name in PICKS and any(_ids(part) != _ids(*full.values()) for part in parts):
            return None
        if name in ("chunk", "tensor_split") and _ids(parts[0]) != _ids(*full.values()):
            if len({part.shape for part in parts}) > 1:
                return None
            for part in parts[1:]:
                self._ledger.tie(part, parts[0])
        planes = [_compressed(part) for part in parts]
        for plane in planes:
            axes = [axis for axis, size in enumerate(plane.shape) if size > 1]
            if len(axes) > 1:  # split over two axes: a rectangle must stay
                self._ledger.tie(plane, plane.narrow(axes[0], 0, 1))
        return lambda result: [_put(*pair) for pair in zip([result] if isinstance(result, Tensor) else result, planes, strict=True)]

    def _pool(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        values = _argument(args, kwargs, 0, "input")
        plane = _plane(values)
        if plane is None:
            return None
        dims = int(name[-2]) if name.endswith("d") and name != "pad" else values.dim() - 2
        if name == "pad":
            dims = len(_argument(args, kwargs, 1, "pad")) // 2
        varied = any(size > 1 for size in plane.shape[values.dim() - dims :])
        return None if varied else lambda result: _put(result, plane)

    def _reduce(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        values = _argument(args, kwargs, 0, "input")
        plane, axes = _plane(values), _argument(args, kwargs, 1, "dim")
        axes = range(values.dim()) if axes is None else [axes] if isinstance(axes, int) else axes
        axes = [axis % values.dim() for axis in axes]
        if plane is None or any(plane.shape[axis] > 1 for axis in axes):
            return None
        return lambda result: _put(result, plane if result.dim() == values.dim() else plane.squeeze(tuple(axes)))


def _plane(tensor: Tensor) -> Tensor | None:
    return getattr(tensor, "_channels", None)


def _put(tensor: Tensor, plane: Tensor | None) -> None:
    tensor._channels = plane  # pyright: ignore[reportAttributeAccessIssue]


def _along(ids: Tensor, tensor: Tensor, axis: int) -> Tensor:
    shape = [1] * tensor.dim()
    shape[axis] = -1
    return _compressed(ids.view(shape))


def _full(tensor: Tensor) -> Tensor:
    plane = _plane(tensor)
    whole = torch.full((1,) * tensor.dim(), FIXED) if plane is None else plane
    return whole.expand(tensor.shape).contiguous()


def _widened(plane: Tensor | None, tensor: Tensor, dims: int) -> Tensor:
    whole = torch.full((1,) * tensor.dim(), FIXED) if plane is None else plane
    return whole.reshape((1,) * (dims - tensor.dim()) + tuple(whole.shape))


def _compressed(plane: Tensor) -> Tensor:
    for axis, size in enumerate(plane.shape):
        if size > 1 and torch.equal(plane, plane.narrow(axis, 0, 1).expand_as(plane)):
            plane = plane.narrow(axis, 0, 1)
    return plane


def _ids(*planes: Tensor) -> set[int]:
    return set(torch.cat([plane.flatten() for plane in planes]).unique().tolist())


def _argument(args: Any, kwargs: Any, index: int, name: str) -> Any:
    return args[index] if len(args) > index else kwargs.get(name)


def _is_index(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() and _plane(tensor) is None


def _unpadded(name: str, args: Any, kwargs: Any) -> bool:
    padding = _argument(args, kwargs, 4, "padding") or 0
    return name in CONVOLUTIONS and (padding == "valid" or not any(padding if isinstance(padding, list | tuple) else [padding]))


def _swapped(value: Any, by: Mapping[int, Tensor]) -> Any:
    if isinstance(value, Tensor):
        return by.get(id(value), value)
    if isinstance(value, Mapping):
        return {key: _swapped(item, by) for key, item in value.items()}
    return type(value)(_swapped(item, by) for item in value) if type(value) in (list, tuple) else value
