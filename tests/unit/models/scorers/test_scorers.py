"""Scorers: what they learn, what they keep, and how they come back from a card."""

import json
import math
from collections.abc import Sequence

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor, nn, tensor

from autosparse.models.errors import DataError, SpecError
from autosparse.models.features import FEATURE_NAMES, FEATURES_VERSION
from autosparse.models.scorers.binned_table import BinnedTable
from autosparse.models.scorers.fit import fit_scorer, minibatches
from autosparse.models.scorers.metrics import spearman
from autosparse.models.scorers.mlp import SPREADS, MlpScorer
from autosparse.models.scorers.registry import SCORERS, build_scorer, scorer_config, scorer_from_config
from autosparse.models.scorers.resnet_lift import ResNetScorer
from autosparse.models.seeding import generator

WIDTH = len(FEATURE_NAMES)
SMALL = {
    "mlp": lambda: MlpScorer(hidden=(8, 4), seed=3),
    "resnet18": lambda: ResNetScorer(width=2, seed=3),
    "table": lambda: BinnedTable(bins=4, rows_per_bin=1),
}


def rows(**columns: Sequence[float]) -> Tensor:
    """A feature matrix with the named columns, zero elsewhere."""
    values = {name: torch.as_tensor(column, dtype=torch.float32) for name, column in columns.items()}
    features = torch.zeros(len(next(iter(values.values()))), WIDTH)
    for name, column in values.items():
        features[:, FEATURE_NAMES.index(name)] = column
    return features


def drawn(count: int, *names: object) -> Tensor:
    return torch.randn(count, WIDTH, generator=generator(5, *names))


def fitted(scorer: nn.Module) -> nn.Module:
    features = drawn(60, "fit")
    fit_scorer(scorer, lambda epoch: [(features, features[:, 2].abs())], epochs=2, lr=0.01)
    return scorer


# the registry and its cards


def test_the_kinds_are_known_by_name():
    assert list(SCORERS) == ["mlp", "resnet18", "table"]
    assert [build_scorer(name, hidden=(4,), seed=0).kind for name in SCORERS] == list(SCORERS)
    with pytest.raises(SpecError, match=r"scorer.kind: 'tabel' is not known; did you mean 'table'\?"):
        build_scorer("tabel", hidden=(), seed=0)


def test_the_seed_alone_decides_the_start():
    before = torch.get_rng_state()
    first, again, other = (build_scorer("mlp", hidden=(8,), seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["body.0.weight"], other["body.0.weight"])


@pytest.mark.parametrize("kind", SMALL)
def test_one_score_per_row(kind: str):
    scores = SMALL[kind]().eval()(drawn(5, kind))
    assert scores.shape == (5,) and scores.dtype == torch.float32


@pytest.mark.parametrize("kind", SMALL)
def test_a_card_and_a_safetensors_file_bring_the_scorer_back_bit_for_bit(kind: str):
    scorer = fitted(SMALL[kind]())
    card, state = json.dumps(scorer_config(scorer)), save(scorer.state_dict())
    before = torch.get_rng_state()
    back = scorer_from_config(json.loads(card))
    back.load_state_dict(load(state))
    features = drawn(9, "card")
    assert type(back) is type(scorer) and not back.training
    assert torch.equal(back(features), scorer(features))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_card_that_cannot_be_used_is_refused():
    card = scorer_config(SMALL["mlp"]())
    assert card["features"] == list(FEATURE_NAMES)
    with pytest.raises(DataError, match=rf"scorer.features_version: 99 is not allowed; allowed: {FEATURES_VERSION}"):
        scorer_from_config(card | {"features_version": 99})
    with pytest.raises(DataError, match="scorer.kind: 'mpl' is not known; did you mean 'mlp'"):
        scorer_from_config(card | {"kind": "mpl"})
    with pytest.raises(DataError, match="scorer.fields: .*depth"):
        scorer_from_config(card | {"fields": {"depth": 3}})


@pytest.mark.parametrize("kind", SMALL)
def test_export_takes_any_number_of_rows(kind: str):
    scorer = fitted(SMALL[kind]())
    program = torch.export.export(scorer, (drawn(4, "export"),), dynamic_shapes=({0: torch.export.Dim("rows", min=1)},)).module()
    for count in (1, 3, 50):
        features = drawn(count, "export", count)
        torch.testing.assert_close(program(features), scorer(features))


# the modules


def test_the_mlp_normalises_each_column_and_ignores_raw_and_constant_ones():
    scorer = MlpScorer(hidden=(4,), seed=0)
    features = rows(weight=[9, 9, 9, 9], weight_scaled=[1, 3, 1, 3], gradient_scaled=[0, 0, 0, 8], depth=[0.1, 0.1, 0.1, 0.1])
    scorer.absorb([(features[:3], torch.zeros(3)), (features[3:], torch.zeros(1))], lambda values: values)
    at = {name: FEATURE_NAMES.index(name) - 2 for name in FEATURE_NAMES}
    assert scorer.mean[at["weight_scaled"]] == 2 and scorer.scale[at["weight_scaled"]] == 1
    assert scorer.mean[at["gradient_scaled"]] == 2
    assert float(scorer.scale[at["gradient_scaled"]]) == pytest.approx(1 / math.sqrt(12))
    score = scorer(features)
    assert torch.equal(scorer(features + rows(weight=[1, 2, 3, 4], gradient=[1, 2, 3, 4], depth=[5, 6, 7, 8])), score)
    assert not torch.equal(scorer(features + rows(weight_scaled=[1, 2, 3, 4])), score)


def test_the_mlp_holds_outliers_within_its_range():
    scorer = MlpScorer(hidden=(4,), seed=0)
    assert torch.equal(scorer(rows(weight_scaled=[SPREADS, -SPREADS])), scorer(rows(weight_scaled=[1e9, -1e9])))


def test_the_mlp_learns_a_rule_and_finds_it_in_unseen_rows():
    def rule(features: Tensor) -> Tensor:
        return features[:, 2].abs().tanh() / 2 + features[:, 6].neg().sigmoid() / 2

    train, unseen = drawn(16384, "train"), drawn(2000, "unseen")
    scorer = build_scorer("mlp", hidden=(32, 32), seed=0)
    losses = fit_scorer(scorer, lambda epoch: minibatches(train, rule(train), 256, generator(0, epoch)), epochs=10, lr=0.01)
    with torch.no_grad():
        error = float((scorer(unseen) - rule(unseen)).square().mean())
        order = spearman(scorer(unseen), rule(unseen))
    assert losses[-1] < losses[0] / 3
    assert error < 0.05 * float(rule(unseen).var()) and order > 0.97


def test_the_papers_scorer_has_its_size_and_sees_two_scalars():
    # lift 2*64+64 + 2*64 + 64*3072+3072 + 2*3072 = 206,144; a CIFAR ResNet-18 of 10 classes has 11,173,962, of one 9*513 less
    assert sum(parameter.numel() for parameter in ResNetScorer().parameters()) == 206_144 + 11_173_962 - 9 * 513
    scorer, features = ResNetScorer(width=2).eval(), drawn(4, "paper")
    other = features.clone()
    other[:, 2:] += 1
    assert torch.equal(scorer(features), scorer(other))
    other[:, 1] += 1
    assert not torch.equal(scorer(features), scorer(other))


def test_the_table_holds_conditional_means_by_hand():
    # median magnitude 2, median growth gradient 0: four bins of a convolution, two rows each
    weight, growth = [1, -1, 1, -1, 3, -3, 3, -3], [-1, -1, 1, 1, -1, -1, 1, 1]
    target = tensor([0.0, 0.2, 0.3, 0.5, 0.6, 0.8, 0.9, 1.0])
    features, table = rows(weight_scaled=weight, growth_gradient=growth), BinnedTable(bins=2, rows_per_bin=1)
    losses = fit_scorer(table, lambda epoch: [(features[:5], target[:5]), (features[5:], target[5:])], epochs=7, lr=1.0)
    torch.testing.assert_close(table(features), tensor([0.1, 0.1, 0.4, 0.4, 0.7, 0.7, 0.95, 0.95]))
    assert losses == pytest.approx([(6 * 0.01 + 2 * 0.0025) / 8])
    assert float(table(rows(weight_scaled=[100.0], growth_gradient=[-100.0]))) == pytest.approx(0.7)
    # no linear layer was seen: the mean of everything
    assert float(table(rows(weight_scaled=[1.0], linear=[1.0]))) == pytest.approx(4.3 / 8)


def test_an_empty_bin_answers_with_the_mean_over_gradients():
    weight, growth = [1, 1, 1, 1, 3, 3, 3, 3], [-1, -1, -1, -1, 1, 1, 1, 1]
    features, table = rows(weight_scaled=weight, growth_gradient=growth), BinnedTable(bins=2, rows_per_bin=1)
    fit_scorer(table, lambda epoch: [(features, tensor([0.0, 0, 0, 0.4, 1, 1, 1, 0.2]))], epochs=1, lr=1.0)
    assert table(rows(weight_scaled=[1, 3], growth_gradient=[1, -1])).tolist() == pytest.approx([0.1, 0.8])


def test_the_table_keeps_kinds_of_layers_apart_and_merges_bins_of_few_rows():
    convolution, linear = drawn(4096, "conv"), drawn(64, "linear")
    convolution[:, -1], linear[:, -1] = 0.0, 1.0
    features = torch.cat([convolution, linear])
    target = torch.rand(len(features), generator=generator(5, "target"))
    table = BinnedTable(bins=8, rows_per_bin=16)
    fit_scorer(table, lambda epoch: [(features, target)], epochs=1, lr=1.0)
    assert table.means.view(2, 64)[0].unique().numel() == 64
    assert table.means.view(2, 64)[1].unique().numel() == 4  # 64 rows / 16 per bin
    assert table.means.view(2, 8, 8)[1, :4, :4].unique().numel() == 1


def test_no_function_of_the_bins_beats_the_table(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        "autosparse.models.scorers.binned_table.EDGE_ROWS", 800
    )  # the edges come from a part of the rows, the means from all
    features = drawn(3000, "table")
    target = (features[:, 2].abs() / 4 + features[:, 6] * 0.1 + torch.rand(3000, generator=generator(5, "noise"))) / 3
    table = BinnedTable(bins=8, rows_per_bin=1)
    (loss,) = fit_scorer(table, lambda epoch: minibatches(features, target, 500, generator(0, epoch)), epochs=1, lr=1.0)
    residual = (target - table(features)).double()
    assert loss == pytest.approx(float(residual.square().mean()), rel=1e-6)
    for score in table(features).unique():  # orthogonal to the indicator of each bin, hence the least squares solution
        assert abs(float(residual[table(features) == score].mean())) < 1e-6
    table.means += 0.01 * torch.randn(len(table.means), generator=generator(5, "nudge"))
    assert float((target - table(features)).square().mean()) > loss


def test_bins_are_a_power_of_two():
    with pytest.raises(SpecError, match="bins: 12 is not allowed; allowed: a power of two"):
        BinnedTable(bins=12)
