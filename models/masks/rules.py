"""What functions of torch do where paths are measured: they make any network positive and of degree 1 in its input.

`Flow` tells how strong paths are, `Connections` of `models/masks/gates.py` whether there are any. Functions are met by name, so that
modules, functions, methods of tensors and operators fall under the same rules, in a network's own `forward` too.
"""

import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from types import FunctionType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from autosparse.models.masks import arithmetic, cells
from autosparse.models.masks.arithmetic import active

DOUBLE = torch.float64

WEIGHTED = ("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "linear")
NORMS = ("instance_norm", "layer_norm", "group_norm", "rms_norm", "local_response_norm", "normalize")
DROPOUTS = ("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_dropout", "feature_alpha_dropout")
ACTIVATIONS = (
    *("relu", "relu6", "hardtanh", "leaky_relu", "prelu", "rrelu", "elu", "celu", "selu", "gelu", "silu", "mish", "hardswish", "softplus"),
    *("softsign", "logsigmoid", "hardshrink", "softshrink", "tanhshrink", "threshold", "log_softmax"),
)
CURVES = (
    *("clamp", "clip", "clamp_min", "clamp_max", "sqrt", "square", "pow", "rpow", "log", "log1p", "expm1", "sin", "cos", "erf", "atan"),
    *("neg", "negative"),
)
BOUNDED = ("sigmoid", "hardsigmoid", "tanh")
IN_PLACE = ("__imul__", "__iadd__", "__isub__", "__itruediv__")
# The same code under a name that torch's own check for modes does not stop, so that what it is made of is seen.
ATTENTION = FunctionType(
    functional.multi_head_attention_forward.__code__,
    {**vars(functional), "has_torch_function": lambda tensors: False},
    argdefs=functional.multi_head_attention_forward.__defaults__,
)


class Rules(TorchFunctionMode):
    """Inside, what is positive stays positive, finite if it can, and float64.

    - Norms and activations are the identity (BatchNorm by its own statistics, and pooling, act as they are); a root, square or
      sine of an activation too.
    - An activation over another, as in a norm written by hand, is the first; over `rsqrt` or `reciprocal` likewise.
    - A difference is a sum. A constant that is added counts by its absolute value, from CLOSED down it closes (-inf).
    - An activation times a parameter that is not prunable (layer scale) is the activation: such a scale is open, however small. Times
      another constant it takes the constant's absolute value.
    - Recurrent layers and `multi_head_attention_forward` are looked into.

    An activation is what hangs on a prunable weight and is more than a view of it. What a product of two activations, a gate and a
    softmax do, the subclasses say.
    """

    def __init__(self) -> None:
        super().__init__()
        sums, differences = ("add", "radd", "iadd"), ("sub", "subtract", "rsub", "isub")
        self._rules: dict[str, Callable[..., Any]] = {
            **dict.fromkeys(WEIGHTED, self._weighted),
            **dict.fromkeys((*NORMS, *DROPOUTS, *ACTIVATIONS), arithmetic.identity),
            **dict.fromkeys(CURVES, arithmetic.curve),
            **dict.fromkeys(BOUNDED, self._bounded),
            **dict.fromkeys(("mul", "multiply", "rmul", "imul"), self._product),
            **dict.fromkeys(("matmul", "bmm", "mm"), self._matrix_product),
            **dict.fromkeys(("baddbmm", "addmm"), self._sum_of_products),
            **dict.fromkeys(("div", "divide", "true_divide", "truediv", "itruediv"), arithmetic.quotient),
            **dict.fromkeys(("rsqrt", "reciprocal", "rdiv"), arithmetic.inverse),
            **dict.fromkeys(sums, self._sum),
            **dict.fromkeys(("cat", "concat", "concatenate", "stack"), self._joined),
            **dict.fromkeys(differences, arithmetic.difference),
            **dict.fromkeys(cells.STEPS, self._recurrent),
            **dict.fromkeys((f"{name}_cell" for name in cells.STEPS), self._cell),
            "batch_norm": self._batch_norm,
            "rmatmul": lambda func, right, left: self._matrix_product(torch.matmul, left, right),
            "addcmul": lambda func, input, one, other, *, value=1: torch.add(input, self._product(torch.mul, one, other), alpha=value),
            "einsum": self._einsum,
            "exp": lambda func, input: input.relu() if active(input) else func(input),
            "softmax": self._softmax,
            "glu": self._glu,
            "masked_fill": arithmetic.masked_fill,
            "where": arithmetic.where,
            "scaled_dot_product_attention": self._attention,
            "multi_head_attention_forward": lambda func, *args, **kwargs: self.inside(ATTENTION, *args, **kwargs),
        }

    def __torch_function__(self, func: Callable[..., Any], types: Iterable[type], args: Any = (), kwargs: Any = None) -> Any:
        spelled = getattr(func, "__name__", "")
        rule = self._rules.get(spelled.strip("_"))
        found = rule(func, *args, **(kwargs or {})) if rule else func(*args, **(kwargs or {}))
        if isinstance(found, Tensor) and found.is_floating_point() and found.dtype != DOUBLE:  # a cast, or a new tensor
            first = args[0] if args else None
            return first.to(found.device) if isinstance(first, Tensor) and first.dtype == DOUBLE else found.to(DOUBLE)
        in_place = spelled in IN_PLACE or (spelled.endswith("_") and not spelled.endswith("__"))
        return args[0].copy_(found) if rule and in_place and found is not args[0] else found

    @abstractmethod
    def weighted(self, values: Tensor, inputs: Tensor, weight: Tensor) -> Tensor:
        """What comes out of a linear layer or a convolution, `values` being what it computes."""

    @abstractmethod
    def normed(self, func: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        """What BatchNorm by running statistics does; the arguments are those of its function."""

    @abstractmethod
    def gate(self, func: Callable[[Tensor], Tensor], values: Tensor) -> Tensor:
        """What a bounded function of an activation does."""

    @abstractmethod
    def softmax(self, values: Tensor, dim: int) -> Tensor:
        """What a softmax of activations does; -inf gives 0."""

    @abstractmethod
    def product(self, func: Callable[[Tensor, Tensor], Tensor], one: Tensor, other: Tensor) -> Tensor:
        """What a product of two activations, element by element, does."""

    @abstractmethod
    def matrix_product(self, func: Callable[[Tensor, Tensor], Tensor], one: Tensor, other: Tensor) -> Tensor:
        """What a sum of products of two activations does."""

    def together(self, branches: Sequence[Tensor]) -> Sequence[Tensor]:
        """What activations are before they are added or concatenated."""
        return branches

    def _weighted(self, func: Callable[..., Tensor], input: Tensor, weight: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return self.weighted(func(input if input.requires_grad else input.abs(), weight, *args, **kwargs), input, weight)

    def _batch_norm(self, func: Callable[..., Tensor], input: Tensor, mean: Any, var: Any, *args: Any, **kwargs: Any) -> Tensor:
        by_batch = mean is None or kwargs.get("training", len(args) > 2 and args[2])
        return input.clone() if by_batch else self.normed(func, input, mean, var, *args, **kwargs)

    def _bounded(self, func: Callable[[Tensor], Tensor], input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return self.gate(func, input) if active(input) else func(input, *args, **kwargs)

    def _softmax(self, func: Callable[..., Tensor], input: Tensor, dim: int | None = None, *args: Any, **kwargs: Any) -> Tensor:
        return self.softmax(input, -1 if dim is None else dim) if active(input) else func(input, dim, *args, **kwargs)

    def _product(self, func: Callable[..., Tensor], input: Any, other: Any, **kwargs: Any) -> Any:
        if active(input) and active(other):
            return self.product(torch.mul, input, other)
        if active(other):
            return self._product(func, other, input) if isinstance(input, Tensor) else torch.mul(other, abs(input))
        if not active(input) or (isinstance(other, Tensor) and other.requires_grad):
            return func(input, other, **kwargs)
        if not arithmetic.is_parameter(other):
            return torch.mul(input, abs(other))
        return torch.mul(input, torch.ones_like(other))

    def _matrix_product(self, func: Callable[..., Tensor], input: Tensor, other: Tensor, **kwargs: Any) -> Tensor:
        if active(input) and active(other):
            return self.matrix_product(func, input, other)
        if not active(input) and not active(other):
            return func(input, other)
        return func(input.abs(), other) if active(other) else func(input, other.abs())

    def _sum(self, func: Callable[..., Tensor], input: Any, other: Any, **kwargs: Any) -> Tensor:
        if active(input) and active(other):
            return func(*self.together([input, other]), **kwargs)
        if arithmetic.is_stream(input, other) or arithmetic.is_stream(other, input):
            input, other = self.together([input, other])
        return arithmetic.sum_(func, input, other, **kwargs)

    def _joined(self, func: Callable[..., Tensor], tensors: Any, *args: Any, **kwargs: Any) -> Tensor:
        return func(self.together(tensors) if all(map(active, tensors)) else tensors, *args, **kwargs)

    def _einsum(self, func: Callable[..., Tensor], equation: str, *operands: Any) -> Tensor:
        parts = operands[0] if len(operands) == 1 and not isinstance(operands[0], Tensor) else operands
        if len(parts) != 2:
            return func(equation, *parts)
        return self._matrix_product(lambda one, other: torch.einsum(equation, one, other), *parts)

    def _sum_of_products(self, func: Callable[..., Tensor], input: Tensor, one: Tensor, other: Tensor, **kwargs: Any) -> Tensor:
        if not (active(one) and active(other)):
            return func(input, one, other, **kwargs)
        return arithmetic.sum_(torch.add, self.matrix_product(torch.matmul, one, other) * abs(kwargs.get("alpha", 1)), input)

    def _glu(self, func: Callable[..., Tensor], input: Tensor, dim: int = -1) -> Tensor:
        value, gate = input.chunk(2, dim)
        return self._product(torch.mul, value, self._bounded(torch.sigmoid, gate))

    def _attention(
        self,
        func: Callable[..., Tensor],
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        if enable_gqa:
            key, value = (part.repeat_interleave(query.shape[-3] // part.shape[-3], -3) for part in (key, value))
        among = self._matrix_product(torch.matmul, query, key.mT) * (scale or 1 / math.sqrt(query.shape[-1]))
        if is_causal:
            attn_mask = torch.ones(among.shape[-2:], dtype=torch.bool, device=among.device).tril()
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            among = among.masked_fill(~attn_mask, -math.inf)
        elif attn_mask is not None:
            among = arithmetic.sum_(torch.add, among, attn_mask)
        return self._matrix_product(torch.matmul, self._softmax(torch.softmax, among, -1), value)

    def _recurrent(self, func: Callable[..., Any], input: Tensor, *args: Any) -> Any:
        if isinstance(args[0], Tensor) and not args[0].is_floating_point():
            return func(input, *args)  # a packed sequence
        return self.inside(cells.layers, func.__name__, input, *args)

    def _cell(self, func: Callable[..., Any], input: Tensor, state: Any, *weights: Tensor | None) -> Any:
        return self.inside(cells.cell, func.__name__, input, state, *weights)

    def inside(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """`func` with everything it is made of under the rules."""
        with self:
            return func(*args, **kwargs)
