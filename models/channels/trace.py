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

from autosparse.models.channels import planes as kinds
from autosparse.models.channels.examples import tensors
from autosparse.models.channels.ledger import FIXED, Constant, Grouped, Ledger, Mixing
from autosparse.models.channels.planes import (
    along,
    argument,
    compressed,
    full,
    heads_of,
    ids_in,
    is_index,
    plane_of,
    put,
    swapped,
    unpadded,
    widened,
)
from autosparse.models.networks.calls import call


class Trace(TorchFunctionMode):
    """Inside, every function of torch writes into `ledger` what it does with channels.

    `kept` are bool masks of weights by name, true where a weight connects. With `care` 1 attention is not followed, with 2 neither are
    reshapes and chunks: numbers of heads and sizes may be written into the network's code.
    """

    def __init__(self, network: nn.Module, kept: Mapping[str, Tensor], ledger: Ledger, *, constants: bool, care: int = 0) -> None:
        super().__init__()
        named = (*network.named_parameters(), *network.named_buffers())
        self._names = {id(tensor): name for name, tensor in named}
        self._kept, self._ledger, self._constants, self._care = kept, ledger, constants, care
        self._modules, self._inside = dict(network.named_modules()), [""]

    def __torch_function__(self, func: Callable[..., Any], types: Iterable[type], args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "").strip("_")
        inputs = list(tensors((args, kwargs)))
        followed = any(plane_of(tensor) is not None or id(tensor) in self._names for tensor in inputs)
        rule = self._rule(name) if followed else None
        before = rule(func, name, args, kwargs) if rule else None
        result = func(*args, **kwargs)
        if before is not None:
            before(result)
        elif followed and (name == "setitem" or next(tensors(result), None) is not None):
            self._unknown(inputs)
        return result

    def run(self, network: nn.Module, example: Any) -> None:
        """Follow one forward pass. Everything that the network returns stays."""

        def enter(module: nn.Module, inputs: Any) -> None:
            self._inside.append(names[module])

        def leave(module: nn.Module, inputs: Any, outputs: Any) -> None:
            self._inside.pop()

        names = {module: name for name, module in self._modules.items()}
        hooks = [hook for module in names for hook in (module.register_forward_pre_hook(enter), module.register_forward_hook(leave))]
        try:
            with self:
                outputs = call(network, example)
            found = list(tensors(outputs))
            self._ledger.connected |= any((plane := plane_of(each)) is None or bool(self._ledger.reached[plane].any()) for each in found)
            self._unknown(found)
        finally:
            for hook in hooks:
                hook.remove()

    def _rule(self, name: str) -> Callable[..., Callable[[Any], None] | None] | None:
        rules = {
            self._layer: {*kinds.CONVOLUTIONS, *kinds.TRANSPOSED, "linear"},
            self._norm: kinds.NORMS,
            self._over_last: {"layer_norm", "rms_norm"},
            self._group_norm: {"group_norm"},
            self._attention: {"scaled_dot_product_attention"},
            self._join: kinds.SUMS | kinds.PRODUCTS,
            self._same: kinds.UNARY,
            self._new: kinds.NEW,
            self._move: kinds.MOVES,
            self._pool: kinds.POOLS,
            self._reduce: kinds.REDUCTIONS,
        }
        return next((rule for rule, names in rules.items() if name in names), None)

    def _unknown(self, inputs: list[Tensor]) -> None:
        for tensor in inputs:
            plane = plane_of(tensor)
            if plane is not None:
                self._ledger.end(plane.flatten())
            name = self._names.get(id(tensor))
            if name is not None:
                for axis, size in enumerate(tensor.shape):
                    self._ledger.use(name, axis, torch.full((size,), FIXED))

    def _line(self, tensor: Tensor, axis: int) -> Tensor:
        """The ids (size,) along an axis; fixed where they differ along another."""
        plane, axis = plane_of(tensor), axis % tensor.dim()
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
        values, weight = argument(args, kwargs, 0, "input"), argument(args, kwargs, 1, "weight")
        bias, groups = argument(args, kwargs, 2, "bias"), 1
        axis = -1 if name == "linear" else -1 - (kinds.CONVOLUTIONS | kinds.TRANSPOSED)[name]
        if name != "linear":
            groups = argument(args, kwargs, 6, "groups") or 1
        key = self._names.get(id(weight))
        if key is None or (groups > 1 and name in kinds.TRANSPOSED):
            return None
        inputs = self._line(values, axis)
        kept = self._kept[key] if key in self._kept else torch.ones(weight.shape, dtype=torch.bool)
        connected = kept.cpu().flatten(2).any(2) if kept.dim() > 2 else kept.cpu()
        connected = connected.T if name in kinds.TRANSPOSED else connected
        outputs = self._grouped(key, inputs, connected, groups) if groups > 1 else self._ledger.mix(inputs, connected)
        if groups == 1:
            self._use(weight, 0 if name in kinds.TRANSPOSED else 1, inputs)
        self._use(weight, 1 if name in kinds.TRANSPOSED else 0, outputs)
        self._use(bias, 0, outputs)
        if self._constants:
            self._constant(key, values, axis, inputs, outputs, name == "linear" or (groups == 1 and unpadded(name, args, kwargs)))
        return lambda result: put(result, along(outputs, result, axis))

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
        return lambda result: put(result, along(ids, result, 1))

    def _over_last(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        values, shape = argument(args, kwargs, 0, "input"), argument(args, kwargs, 1, "normalized_shape")
        plane = plane_of(values)
        if plane is None or any(size > 1 for size in plane.shape[-len(shape) :]):
            return None
        return lambda result: put(result, plane)

    def _group_norm(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        values, groups = argument(args, kwargs, 0, "input"), argument(args, kwargs, 1, "num_groups")
        scale, shift = argument(args, kwargs, 2, "weight"), argument(args, kwargs, 3, "bias")
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
        return lambda result: put(result, along(outputs, result, 1))

    def _attention(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        """Whole heads: what a head puts out comes from its values alone, weighed by its queries and keys."""
        qkv = [argument(args, kwargs, index, key) for index, key in enumerate(("query", "key", "value"))]
        bias = argument(args, kwargs, 3, "attn_mask")
        by_head = [heads_of(tensor) for tensor in qkv]
        count, module = qkv[0].shape[-3] if qkv[0].dim() > 3 else 0, self._inside[-1]
        known = any(vars(self._modules[module]).get(each) == count for each in kinds.HEADS)
        same = all(ids is not None and len(ids) == count for ids in by_head) and (bias is None or bias.dim() < 3 or bias.shape[-3] == 1)
        if self._care or not known or not same:
            return None
        queries, keys, values = (ids for ids in by_head if ids is not None)
        outputs = self._ledger.hand_on(values.flatten(), self._ledger.reached[values].flatten()).view(values.shape)
        weighing = torch.cat([queries, keys], 1)
        rows = torch.ones(count, values.shape[1], weighing.shape[1], dtype=torch.uint8)
        self._ledger.edges.append(Mixing(outputs.flatten(), weighing.flatten(), torch.block_diag(*rows).bool()))
        for ids in (queries, keys, values):
            self._ledger.tie(ids, outputs[:, :1])
        self._ledger.heads[module] = outputs
        shape = [1] * (qkv[2].dim() - 3) + [count, 1, values.shape[1]]
        return lambda result: put(result, compressed(outputs.view(shape)))

    def _new(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        return lambda result: None

    def _same(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        first, *others = tensors((args, kwargs))
        plane = plane_of(first)
        if any(plane_of(tensor) is not None for tensor in others) and name != "type_as":
            return None
        if plane is None:
            return lambda result: None if result is first else self._unknown([first])
        return lambda result: put(result, plane)

    def _join(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        """Sums and products: tied along the axes on which channels differ, but for operands that are broadcast there."""
        operands = [value for value in (*args[:2], *kwargs.values()) if isinstance(value, Tensor)]
        dims = max(tensor.dim() for tensor in operands)
        wide = [widened(plane_of(tensor), tensor, dims) for tensor in operands]
        varied = torch.broadcast_shapes(*(plane.shape for plane in wide))
        axes = [axis for axis, size in enumerate(varied) if size > 1]
        parts: list[tuple[Tensor, Tensor]] = []
        for tensor, plane in zip(operands, wide, strict=True):
            size = (1,) * (dims - tensor.dim()) + tuple(tensor.shape)
            if not any(size[axis] > 1 for axis in axes):
                self._unknown([tensor])
            elif id(tensor) not in self._names:
                parts.append((tensor, plane.expand(varied)))
        if not parts:
            return None
        reached = torch.stack([self._ledger.reached[ids] for _, ids in parts]).any(0)
        if name in kinds.PRODUCTS:
            for tensor, ids in parts:
                reached = reached & ~self._zero(tensor, ids)
        outputs = self._ledger.hand_on(parts[0][1].flatten(), reached.flatten()).view(varied)
        for _, ids in parts[1:]:
            self._ledger.also_from(outputs, ids)
        for tensor in operands:
            if id(tensor) in self._names:
                self._ledger.tie(self._elements(tensor), outputs)
        return lambda result: put(result, outputs)

    def _zero(self, tensor: Tensor, ids: Tensor) -> Tensor:
        """Which of `ids` hold zero whatever the input is: nothing reaches them, and they are zero now."""
        away = ~self._ledger.reached[ids]
        if not away.any():
            return away
        values = tensor.detach().abs().reshape((1,) * (ids.dim() - tensor.dim()) + tuple(tensor.shape))
        axes = [axis for axis, size in enumerate(ids.shape) if size == 1]
        return away & (values.amax(axes, keepdim=True) if axes else values).cpu().eq(0)

    def _elements(self, tensor: Tensor) -> Tensor:
        """The ids of a parameter or buffer beside channels, one for each element: a layer scale, an embedding of positions."""
        name = self._names[id(tensor)]
        if name not in self._ledger.elements:
            self._ledger.elements[name] = self._ledger.new(torch.zeros(tensor.shape, dtype=torch.bool))
        return self._ledger.elements[name]

    def _move(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        if name == "get" and getattr(func, "__self__", None) not in (Tensor.T, Tensor.mT, Tensor.data):
            return None
        sources = [(tensor, plane_of(tensor)) for tensor in tensors((args, kwargs))]
        self._unknown([tensor for tensor, _ in sources if id(tensor) in self._names])
        if all(plane is None for _, plane in sources):
            return lambda result: None
        if self._care > 1 and name in kinds.RESHAPES:
            return None
        ids = {id(tensor): full(tensor) for tensor, _ in sources if not is_index(tensor)}
        moved = func(*swapped(args, ids), **swapped(kwargs, ids))
        parts = [moved] if isinstance(moved, Tensor) else list(moved)
        if name in kinds.PICKS and any(ids_in(part) != ids_in(*ids.values()) for part in parts):
            return None
        if name in kinds.PARTS and ids_in(parts[0]) != ids_in(*ids.values()):
            if len({part.shape for part in parts}) > 1:
                return None
            for part in parts[1:]:
                self._ledger.tie(part, parts[0])
        planes = [compressed(part) for part in parts]
        self._ledger.rectangles += [plane.squeeze() for plane in planes if plane.squeeze().dim() > 1]
        return lambda result: [put(*pair) for pair in zip([result] if isinstance(result, Tensor) else result, planes, strict=True)]

    def _pool(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        values = argument(args, kwargs, 0, "input")
        plane = plane_of(values)
        if plane is None:
            return None
        dims = int(name[-2]) if name.endswith("d") and name != "pad" else values.dim() - 2
        if name == "pad":
            dims = len(argument(args, kwargs, 1, "pad")) // 2
        varied = any(size > 1 for size in plane.shape[values.dim() - dims :])
        return None if varied else lambda result: put(result, plane)

    def _reduce(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        values = argument(args, kwargs, 0, "input")
        plane, axes = plane_of(values), argument(args, kwargs, 1, "dim")
        axes = range(values.dim()) if axes is None else [axes] if isinstance(axes, int) else axes
        axes = [axis % values.dim() for axis in axes]
        if plane is None or any(plane.shape[axis] > 1 for axis in axes):
            return None
        return lambda result: put(result, plane if result.dim() == values.dim() else plane.squeeze(tuple(axes)))
