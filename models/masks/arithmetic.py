"""Arithmetic of activations where paths are measured: nothing becomes negative, nothing cancels.

An activation is what hangs on a prunable weight and is more than a view of it.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

CLOSED = -50.0  # constants from here down close what they are added to: masks of attention hold -100, -1e4 or -inf


class _Root(torch.autograd.Function):
    """Square root whose slope at zero is zero: nothing enters there."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        roots = values.clamp(min=0).sqrt()
        ctx.save_for_backward(roots)
        return roots

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> Tensor:
        (roots,) = ctx.saved_tensors
        return torch.where(roots > 0, slopes[0] / (2 * roots), 0.0)


def root(values: Tensor) -> Tensor:
    """The square root, 0 with slope 0 where there is nothing."""
    return _Root.apply(values)


def active(value: Any) -> bool:
    """Whether this hangs on a prunable weight and is more than a view of one."""
    return isinstance(value, Tensor) and value.requires_grad and not is_parameter(value)


def base_of(value: Tensor) -> Tensor:
    return value if value._base is None else value._base


def is_parameter(value: Any) -> bool:
    return isinstance(value, Tensor) and isinstance(base_of(value), nn.Parameter)


def hangs_on(value: Tensor, weight: Tensor) -> bool:
    """Whether the graph of `value` leads to `weight`."""
    left, met = [value.grad_fn], set()
    while left:
        node = left.pop()
        if node is None or node in met:
            continue
        if getattr(node, "variable", None) is weight:
            return True
        met.add(node)
        left += [before for before, _ in node.next_functions]
    return False


def identity(func: Callable[..., Any], input: Tensor, *args: Any, inplace: bool = False, **kwargs: Any) -> Tensor:
    return input if inplace or func.__name__.endswith("_") else input.clone()  # a copy: what comes next may work in place


def curve(func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return next((value.clone() for value in args if active(value)), None) if any(map(active, args)) else func(*args, **kwargs)


def inverse(func: Callable[..., Tensor], input: Tensor, *numbers: Any) -> Tensor:
    if not active(input):
        return func(input, *numbers)
    return math.prod(map(abs, numbers), start=torch.ones_like(input, requires_grad=False))


def quotient(func: Callable[..., Tensor], input: Any, other: Any, **kwargs: Any) -> Tensor:
    if active(other) and not isinstance(input, Tensor):
        return torch.full_like(other.detach(), abs(input))
    if active(other):
        return torch.broadcast_tensors(input, other)[0].clone()
    return func(input, abs(other), **kwargs) if active(input) else func(input, other, **kwargs)


def sum_(func: Callable[..., Tensor], input: Any, other: Any, **kwargs: Any) -> Tensor:
    if active(other) and not active(input) and isinstance(input, Tensor):
        input, other, func = other, input, torch.add
    if active(input) and isinstance(other, Tensor) and not other.requires_grad and other.is_floating_point() and bool((other < 0).any()):
        return torch.where(other > CLOSED, input + other.abs(), -math.inf)
    return func(input, other, **kwargs)


def difference(func: Callable[..., Tensor], input: Any, other: Any, **kwargs: Any) -> Tensor:
    if not (active(input) or active(other)):
        return func(input, other, **kwargs)
    if isinstance(other, Tensor) and not active(other):
        return sum_(torch.add, input, -other.abs())
    return torch.add(abs(input), abs(other), **kwargs) if isinstance(input, Tensor) else torch.add(other, abs(input))


def masked_fill(func: Callable[..., Tensor], input: Tensor, mask: Tensor, value: Any) -> Tensor:
    return func(input, mask, -math.inf if active(input) and float(value) <= CLOSED else value)


def where(func: Callable[..., Any], condition: Any, *sides: Any, **kwargs: Any) -> Any:
    if len(sides) != 2 or not any(map(active, sides)):
        return func(condition, *sides, **kwargs)
    return func(condition, *(side if active(side) else _closing(side) for side in sides))


def _closing(side: Any) -> Any:
    return torch.where(side > CLOSED, side, -math.inf) if isinstance(side, Tensor) else (side if side > CLOSED else -math.inf)
