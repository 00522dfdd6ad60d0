"""The streaming fit: what counts as the loss, what is reported, and how ranks share the rows."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn, tensor

from autosparse.models.errors import DataError, DivergedError
from autosparse.models.features import FEATURE_NAMES
from autosparse.models.scorers.binned_table import BinnedTable
from autosparse.models.scorers.fit import fit_scorer, minibatches
from autosparse.models.scorers.mlp import MlpScorer
from autosparse.models.seeding import generator

WIDTH = len(FEATURE_NAMES)


def drawn(count: int, *names: object) -> Tensor:
    return torch.randn(count, WIDTH, generator=generator(5, *names))


class Constant(nn.Module):
    """Answers every row with its one parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.zeros(()))

    def forward(self, features: Tensor) -> Tensor:
        return self.value.expand(len(features))


def test_the_loss_of_an_epoch_counts_rows_not_batches():
    batches = [(torch.zeros(3, WIDTH), tensor([1.0, 1.0, 1.0])), (torch.zeros(1, WIDTH), tensor([3.0]))]
    losses = fit_scorer(Constant(), lambda epoch: batches, epochs=1, lr=1e-9)
    assert losses == pytest.approx([(1 + 1 + 1 + 9) / 4], rel=1e-6)


def test_every_epoch_is_reported_and_the_rate_falls_by_a_cosine():
    scorer, seen = Constant(), []

    def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        yield torch.zeros(2, WIDTH), torch.full((2,), 1e6)

    losses = fit_scorer(scorer, batches, epochs=4, lr=0.1, on_epoch=lambda epoch, loss: seen.append((epoch, loss, scorer.value.item())))
    assert [(epoch, loss) for epoch, loss, _ in seen] == list(enumerate(losses))
    # Adam moves by its rate where the gradient does not change: lr (1 + cos(pi epoch / 4)) / 2
    steps = [after - before for before, after in pairwise([0.0, *(value for *_, value in seen)])]
    assert steps == pytest.approx([0.1, 0.0853553, 0.05, 0.0146447], rel=1e-3)
    assert not scorer.training


def test_a_loss_that_is_not_finite_stops_the_fit_before_it_is_reported():
    seen = []
    bad = [(torch.zeros(2, WIDTH), tensor([1.0, float("nan")]))]
    with pytest.raises(DivergedError, match="scorer.loss: nan in epoch 0"):
        fit_scorer(Constant(), lambda epoch: bad, epochs=2, lr=0.1, on_epoch=lambda epoch, loss: seen.append(epoch))
    assert seen == []


@pytest.mark.parametrize("scorer", [Constant(), MlpScorer(), BinnedTable()], ids=["constant", "mlp", "table"])
def test_no_rows_are_an_error(scorer: nn.Module):
    with pytest.raises(DataError, match="0 training rows"):
        fit_scorer(scorer, lambda epoch: [], epochs=1, lr=0.1)


@pytest.mark.parametrize(("count", "sizes"), [(10, [4, 3, 3]), (8, [4, 4]), (3, [3]), (9, [3, 3, 3]), (0, [])])
def test_minibatches_are_all_rows_once_in_equal_parts(count: int, sizes: list[int]):
    features = torch.arange(count).float()[:, None].expand(-1, WIDTH)
    batches = list(minibatches(features, torch.arange(count), 4, generator(0, "order")))
    assert [len(target) for _, target in batches] == sizes
    assert sorted(int(row) for _, target in batches for row in target) == list(range(count))
    assert all(torch.equal(part[:, 0], target.float()) for part, target in batches)


def test_minibatches_follow_their_generator():
    def order(seed: int) -> list[int]:
        return torch.cat([target for _, target in minibatches(torch.zeros(50, WIDTH), torch.arange(50), 8, generator(seed))]).tolist()

    assert order(1) == order(1) != order(2)


@pytest.mark.parametrize("begin", [MlpScorer, lambda: BinnedTable(bins=4, rows_per_bin=1)], ids=["mlp", "table"])
def test_ranks_with_different_rows_agree(begin: Callable[[], nn.Module]):
    features = drawn(600, "ranks")
    target = features[:, 2].abs()
    scorers = [begin(), begin()]  # here, because inits borrow the global generator, which threads share
    parts, slots, barrier = (slice(0, 200), slice(200, 600)), [torch.zeros(())] * 2, threading.Barrier(2, timeout=60)

    def fit(rank: int) -> tuple[nn.Module, list[float]]:
        def all_sum(values: Tensor) -> Tensor:
            slots[rank] = values
            barrier.wait()
            total = slots[0] + slots[1]
            barrier.wait()
            return total

        batches = [(features[parts[rank]], target[parts[rank]])]
        return scorers[rank], fit_scorer(scorers[rank], lambda epoch: batches, epochs=1, lr=1e-9, all_sum=all_sum)

    with ThreadPoolExecutor(2) as pool:
        (first, losses), (second, others) = pool.map(fit, range(2))
    assert losses == others
    assert all(torch.equal(value, dict(second.named_buffers())[name]) for name, value in first.named_buffers())
    with torch.no_grad():
        assert losses == pytest.approx([float((first(features) - target).square().mean())], rel=1e-4)
    if isinstance(first, MlpScorer):
        torch.testing.assert_close(first.mean, features[:, 2:].mean(0))


def test_the_fit_runs_through_a_distributed_wrapper(tmp_path: Path):
    features = drawn(64, "ddp")
    batches = [(features[:40], features[:40, 2]), (features[40:], features[40:, 2])]
    alone, wrapped, calls = MlpScorer(hidden=(4,), seed=0), MlpScorer(hidden=(4,), seed=0), []
    expected = fit_scorer(alone, lambda epoch: batches, epochs=2, lr=0.01)
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        network = nn.parallel.DistributedDataParallel(wrapped)
        network.register_forward_hook(lambda module, args, output: calls.append(len(output)))
        losses = fit_scorer(wrapped, lambda epoch: batches, epochs=2, lr=0.01, forward=network)
        del network  # before the group: the last to hold one joins its threads under the GIL, which one of them may wait for
    finally:
        dist.destroy_process_group()
    assert calls == [40, 24] * 2
    assert losses == pytest.approx(expected)
    torch.testing.assert_close(wrapped.state_dict(), alone.state_dict())
