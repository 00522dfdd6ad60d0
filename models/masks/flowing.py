"""How strongly paths carry: the rules of SynFlow and of all that counts paths by their strength."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from autosparse.models.masks.arithmetic import hangs_on, root
from autosparse.models.masks.rules import Rules


class Flow(Rules):
    """How strongly each path carries. What several paths make together, each carries a part of.

    A product of two activations is their geometric mean, so that gate and gated, queries and keys, attention and values each carry
    half; a sum of products is the sum of those. Gates are the identity. A softmax over n is ReLU / n^2: its geometric means with the
    values then add up to an average over the n.

    `recurrent`: the network feeds a layer's output back to it by its own `forward`. There bounded functions and products
    element by element act as they are, because they keep the numbers finite. `look` finds out whether it does.

    `balanced`: branches that meet are scaled, by constants, to the same mean. Each then carries the same share of the flow however
    little its weights let through, so that none of them starves beside a stronger one or beside the identity.
    """

    def __init__(self, *, recurrent: bool = False, balanced: bool = False, look: bool = False) -> None:
        super().__init__()
        self.recurrent, self.balanced = recurrent, balanced
        self._used: set[int] | None = set() if look else None

    def weighted(self, values: Tensor, inputs: Tensor, weight: Tensor) -> Tensor:
        """As it is."""
        if self._used is not None:
            self.recurrent |= id(weight) in self._used and hangs_on(inputs, weight)
            self._used.add(id(weight))
        return values

    def together(self, branches: Sequence[Tensor]) -> Sequence[Tensor]:
        """As they are, or scaled to the same mean."""
        if not self.balanced:
            return branches
        means = torch.stack([branch.detach().mean() for branch in branches])
        factors = torch.where(means > 0, means.mean() / means, 1.0).unbind()
        return [branch * factor for branch, factor in zip(branches, factors, strict=True)]

    def inside(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """`func` with everything it is made of under the rules; a recurrent layer of torch's does not make the network recurrent."""
        looked, self._used = self._used, None
        try:
            return super().inside(func, *args, **kwargs)
        finally:
            self._used = looked

    def normed(self, func: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        """As it is."""
        return func(*args, **kwargs)

    def gate(self, func: Callable[[Tensor], Tensor], values: Tensor) -> Tensor:
        """The identity, or as it is in a recurrent network."""
        return func(values) if self.recurrent else values.clone()

    def softmax(self, values: Tensor, dim: int) -> Tensor:
        """ReLU / n^2."""
        return values.relu() / values.shape[dim] ** 2

    def product(self, func: Callable[[Tensor, Tensor], Tensor], one: Tensor, other: Tensor) -> Tensor:
        """The geometric mean, or as it is in a recurrent network."""
        return func(one, other) if self.recurrent else func(root(one), root(other))

    def matrix_product(self, func: Callable[[Tensor, Tensor], Tensor], one: Tensor, other: Tensor) -> Tensor:
        """The sum of geometric means."""
        return func(root(one), root(other))
