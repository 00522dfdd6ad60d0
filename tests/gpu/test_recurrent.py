"""Scores of recurrent networks: cuDNN has no way back through them in eval mode, and no second derivative at all."""

import pytest
import torch
from torch import Tensor, nn

from autosparse.models import seeding
from autosparse.models.criteria.registry import CRITERIA
from autosparse.models.masks import mask as masks
from autosparse.models.seeding import scoped

pytestmark = pytest.mark.gpu

CPU = torch.device("cpu")


class Reader(nn.Module):
    """Reads rows of numbers by a recurrent layer of torch's own, with dropout between its two layers."""

    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.rows = kind(6, 12, num_layers=2, dropout=0.5, batch_first=True)  # type: ignore[call-arg]
        self.head = nn.Linear(12, 4)

    def forward(self, values: Tensor) -> Tensor:
        return self.head(self.rows(values)[0][:, -1])


def cut(kind: type[nn.RNNBase], criterion: str, device: torch.device) -> dict[str, Tensor]:
    with scoped(1, "reader"):
        network = Reader(kind).eval().to(device)
    stream = seeding.generator(2)
    batches = [(torch.randn(16, 5, 6, generator=stream).to(device), torch.randint(4, (16,), generator=stream).to(device))]
    scores = CRITERIA[criterion].score(network, batches, seeding.generator(3), head=True, density=0.2)
    assert not network.training and not network.rows.training and network.rows.dropout == 0.5
    assert all(score.isfinite().all() for score in scores.values())
    return {name: keep.cpu() for name, keep in CRITERIA[criterion].allocate(scores, 0.2).items()}


@pytest.mark.parametrize("criterion", ["snip", "grasp", "force", "synflow", "smallest_paths"])
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers_are_scored_as_on_the_cpu(kind: type[nn.RNNBase], criterion: str, device: torch.device) -> None:
    expected, found = cut(kind, criterion, CPU), cut(kind, criterion, device)
    both = {name: keep & found[name] for name, keep in expected.items()}
    assert masks.kept(found) == masks.kept(expected) and masks.kept(both) >= 0.9 * masks.kept(expected)
