"""Lagrange multipliers that climb while a constraint is violated."""

from collections.abc import Callable

import torch
from torch import Tensor

from autosparse.models.methods.contract import Facts, State, StepInfo


class DualAscent:
    """Holds shares (K,) at or below `targets` (K,): the loss gets multiplier * (share - target), summed over the constraints.

    After each step a multiplier grows by `lr` times its violation and never falls below 0; with `restarts` it falls to 0 as soon as
    its constraint holds, which stops overshooting (Gallego-Posada et al. 2022, arXiv 2208.04425, section 3.4 and algorithm 1).
    """

    def __init__(self, shares: Callable[[], Tensor], targets: Tensor, *, lr: float, restarts: bool = True) -> None:
        self._shares, self._targets, self._lr, self._restarts = shares, targets, lr, restarts
        self.multipliers = torch.zeros_like(targets)

    def loss_term(self) -> Tensor:
        """Differentiable in what the shares depend on, not in the multipliers."""
        return (self.multipliers * (self._shares() - self._targets)).sum()

    @torch.no_grad()
    def after_step(self, info: StepInfo) -> None:
        """Climb, or start again."""
        violations = self._shares() - self._targets
        self.multipliers.add_(violations, alpha=self._lr).clamp_(min=0)
        if self._restarts:
            self.multipliers.masked_fill_(violations <= 0, 0)

    @torch.no_grad()
    def facts(self) -> Facts:
        """The largest violation (below 0: all hold) and the largest multiplier."""
        return {"violation": float((self._shares() - self._targets).max()), "multiplier": float(self.multipliers.max())}

    def state_dict(self) -> State:
        return {"multipliers": self.multipliers}

    def load_state_dict(self, state: State) -> None:
        self.multipliers.copy_(state["multipliers"])
