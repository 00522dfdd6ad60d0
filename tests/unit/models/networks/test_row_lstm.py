"""The LSTM over image rows: against torch's own, its paths, its criteria, and a training."""

import pytest
import torch
from torch import nn

from autosparse.models import seeding
from autosparse.models.criteria.registry import CRITERIA
from autosparse.models.masks import mask as masks
from autosparse.models.masks.gates import effective, facts
from autosparse.models.masks.mask import full, prunable
from autosparse.models.networks.build import build_network
from autosparse.models.networks.flops import forward_macs
from autosparse.models.networks.row_lstm import FORGET, RowLSTM
from autosparse.models.specs.run_specs import LOOKING_AHEAD, DataSpec, JobSpec, NetworkSpec, TrainSpec
from autosparse.models.training.images import ImageSet
from autosparse.models.training.loop import fit
from autosparse.models.training.trainer import Trainer


def build(width: int = 5, shape: tuple[int, int, int] = (2, 6, 3), classes: int = 4) -> RowLSTM:
    network = build_network(NetworkSpec(name="row-lstm", width=width), image_shape=shape, num_classes=classes, seed=0)
    assert isinstance(network, RowLSTM)
    return network


def test_it_computes_what_the_lstm_of_torch_computes() -> None:
    network = build().double()
    theirs = nn.LSTM(6, 5, batch_first=True).double()
    with torch.no_grad():
        network.inputs.bias.normal_(generator=seeding.generator(3))
        theirs.weight_ih_l0.copy_(network.inputs.weight)
        theirs.weight_hh_l0.copy_(network.recurrent.weight)
        theirs.bias_ih_l0.copy_(network.inputs.bias)
        theirs.bias_hh_l0.zero_()[5:10] = FORGET
    images = torch.randn(3, 2, 6, 3, generator=seeding.generator(1), dtype=torch.float64)
    rows = torch.stack([torch.cat([images[:, 0, row], images[:, 1, row]], dim=1) for row in range(6)], dim=1)
    torch.testing.assert_close(network(images), network.head(theirs(rows)[0][:, -1]))


def test_its_matrices_are_prunable() -> None:
    assert {name: tuple(p.shape) for name, p in prunable(build()).items()} == {
        "inputs.weight": (20, 6),
        "recurrent.weight": (20, 5),
        "head.weight": (4, 5),
    }


def test_the_recurrent_matrix_is_used_once_per_row() -> None:
    assert forward_macs(build(), (2, 6, 3)) == {"inputs.weight": 6 * 120, "recurrent.weight": 6 * 100, "head.weight": 20}


def test_paths_go_through_cells_that_the_image_reaches_and_the_classifier_reads() -> None:
    network = build()
    mask = full(prunable(network))
    assert facts(network, mask, (2, 6, 3), density=1.0)["effective_density"] == 1.0
    mask["inputs.weight"][10] = False  # the value of cell 0 sees neither image nor cells
    mask["recurrent.weight"][10] = False
    mask["head.weight"][:, 1] = False  # nothing reads cell 1 but the other cells
    mask["recurrent.weight"][:, 1] = False
    alive = effective(network, mask, (2, 6, 3))
    gates_of_0, all_of_1 = [0, 5, 15], [1, 6, 11, 16]
    assert not alive["inputs.weight"][gates_of_0 + all_of_1].any() and not alive["recurrent.weight"][gates_of_0 + all_of_1].any()
    assert not alive["head.weight"][:, 0].any() and not alive["recurrent.weight"][:, 0].any()
    others = [2, 3, 4, 7, 8, 9, 12, 13, 14, 17, 18, 19]
    assert alive["inputs.weight"][others].all() and alive["recurrent.weight"][others][:, 2:].all()


@pytest.mark.parametrize("criterion", sorted(set(CRITERIA) - set(LOOKING_AHEAD)))
def test_criteria_score_it(criterion: str) -> None:
    network, stream = build(width=8), seeding.generator(2)
    batches = [(torch.randn(8, 2, 6, 3, generator=stream), torch.randint(4, (8,), generator=stream)) for _ in range(2)]
    scores = CRITERIA[criterion].score(network, batches, seeding.generator(3), head=True, density=0.2)
    assert all(score.isfinite().all() for score in scores.values())
    assert {name: score.shape for name, score in scores.items()} == {name: p.shape for name, p in prunable(network).items()}


@pytest.mark.parametrize("density", [1.0, 0.3])
def test_it_learns_which_row_is_bright(density: float) -> None:
    labels = torch.arange(120) % 4
    pixels = torch.randint(0, 100, (120, 1, 8, 8), generator=seeding.generator(4))
    pixels[torch.arange(120), 0, labels * 2] += 150
    data = ImageSet(pixels.to(torch.uint8), labels)
    network = build(24, (1, 8, 8))
    mask = {name: torch.rand(p.shape, generator=seeding.generator(5, name)) < density for name, p in prunable(network).items()}
    spec = TrainSpec(epochs=30, batch_size=24, lr=0.1, momentum=0.9, nesterov=False, weight_decay=0.0, schedule="onecycle")
    reports = []
    one = Trainer(network, network, spec, DataSpec(name="digits", mean=(0.3,), std=(0.25,)), JobSpec(), data, data, seed=1, mask=mask)
    fit(one, on_epoch=reports.append)
    assert reports[-1].loss < 0.4 * reports[0].loss and reports[-1].metrics["accuracy"] > 0.9
    assert masks.violations(network, mask) == 0
