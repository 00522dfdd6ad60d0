"""Controllers that remember nothing: a fixed price, a clamp, a weight decay that follows the gates."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from autosparse.models.methods.contract import Facts, State, StepInfo
from autosparse.models.methods.expected_cost import ChannelCost
from autosparse.models.methods.gate_bank import GateBank


class Stateless:
    """A controller that does nothing; those below do one thing more."""

    def loss_term(self) -> Tensor | None:
        return None

    def after_step(self, info: StepInfo) -> None:
        return None

    def facts(self) -> Facts:
        return {}

    def state_dict(self) -> State:
        return {}

    def load_state_dict(self, state: State) -> None:
        return None


class FixedPenalty(Stateless):
    """`factor` times the expected share of what the network costs."""

    def __init__(self, bank: GateBank, cost: ChannelCost, factor: float) -> None:
        self._bank, self._cost, self._factor = bank, cost, factor

    def loss_term(self) -> Tensor:
        return self._factor * self._cost.total(self._bank.openness())


class Clamp(Stateless):
    """Keeps logits within [lowest, highest] after every step."""

    def __init__(self, logits: Tensor, lowest: float, highest: float) -> None:
        self._logits, self._range = logits, (lowest, highest)

    @torch.no_grad()
    def after_step(self, info: StepInfo) -> None:
        self._logits.clamp_(*self._range)


class OpenDecay(Stateless):
    """Weight decay of gated weights, each times the probability that its gate is open, which takes no gradient from it.

    `weights` are pairs of a weight and the group whose gates its rows, or its elements, have.
    """

    def __init__(self, bank: GateBank, weights: Sequence[tuple[nn.Parameter, int]], decay: float) -> None:
        self._bank, self._weights, self._decay = bank, weights, decay

    def loss_term(self) -> Tensor:
        with torch.no_grad():
            probabilities = self._bank.openness()
        return self._decay / 2 * torch.stack([_norm(weight, probabilities[group]) for weight, group in self._weights]).sum()


def _norm(weight: Tensor, probability: Tensor) -> Tensor:
    """sum_j P_j ||w_j||^2 over filters, or over weights where there is a gate for each."""
    squares = weight.square() if probability.numel() == weight.numel() else weight.square().flatten(1).sum(1)
    return (squares * probability.view(squares.shape)).sum()
