"""The seconds of a training step: measured on a copy, on one thread, with an end."""

import time

import pytest
import torch
from torch import Tensor, nn

from autosparse.models.training.probe import step_seconds


class Slow(nn.Module):
    """Waits before every pass: long in the first ones, as a network that sets something up."""

    def __init__(self, *seconds: float) -> None:
        super().__init__()
        self.layer, self.seconds, self.calls = nn.Linear(2, 3), seconds, []

    def __deepcopy__(self, memo: object) -> "Slow":
        copy = Slow(*self.seconds)
        copy.load_state_dict(self.state_dict())
        copy.calls = self.calls  # shared, so that the test sees them
        return copy

    def forward(self, images: Tensor) -> Tensor:
        time.sleep(self.seconds[min(len(self.calls), len(self.seconds) - 1)])
        self.calls.append((len(images), torch.get_num_threads()))
        return self.layer(images)


def batch(size: int) -> tuple[Tensor, Tensor]:
    return torch.ones(size, 2), torch.zeros(size, dtype=torch.int64)


def test_the_first_steps_do_not_count_and_the_network_stays_as_it_was() -> None:
    network = Slow(0.15, 0.15, 0.15, 0.02).eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    threads = torch.get_num_threads()
    seconds = step_seconds(network, [batch(2), batch(4)])
    assert 0.02 <= seconds < 0.1
    assert network.calls == [(2, 1), (4, 1)] * 5 and torch.get_num_threads() == threads and not network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(param.grad is None for param in network.parameters())


@pytest.mark.parametrize(("seconds", "calls", "least", "most"), [((0.2, 0.06), 2, 0.06, 0.15), ((0.3,), 1, 0.3, 0.6)])
def test_a_slow_network_is_not_waited_for(seconds: tuple[float, ...], calls: int, least: float, most: float) -> None:
    network = Slow(*seconds)
    found = step_seconds(network, [batch(2)], patience_s=0.25)
    assert least <= found < most and len(network.calls) == calls


def test_a_loss_of_ones_own_is_the_one_that_is_measured() -> None:
    network, seen = nn.Linear(2, 1), []

    def loss(module: nn.Module, batch: Tensor) -> Tensor:
        seen.append(batch.shape)
        return module(batch).square().mean()

    assert step_seconds(network, [torch.ones(3, 2)], loss=loss) > 0
    assert seen == [(3, 2)] * 10
