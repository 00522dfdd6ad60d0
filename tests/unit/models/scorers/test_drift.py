"""The drift guard: silent on what the scorer learned from, and a named column for whatever is different."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from autosparse.flows.prune_command import prune_network
from autosparse.flows.recipes import smoke
from autosparse.library.scorer_files import features_seen, load_scorer, save_scorer
from autosparse.models.criteria.paths import Paths
from autosparse.models.errors import DataError
from autosparse.models.features import FEATURE_NAMES, LAYER_COLUMNS, LayerFacts, layer_facts
from autosparse.models.networks.build import build_network
from autosparse.models.scorers.criterion import as_criterion, inputs
from autosparse.models.scorers.drift import Column, Compared, FirstLook, Seen, compare, distance, picked, sketch
from autosparse.models.scorers.registry import build_scorer
from autosparse.models.seeding import generator
from autosparse.models.specs.fanout import TargetSpec
from autosparse.models.specs.run_specs import DataSpec, NetworkSpec, ScorerSpec
from autosparse.storage.checkpoints import load_tensors
from autosparse.storage.feature_table import commit_dataset, open_dataset, write_shard
from autosparse.storage.open_store import open_store
from autosparse.storage.store import Store
from autosparse.tasks.worker.problem import open_problem
from autosparse.tasks.worker.score_target import Scoring, ScoringInputs, _method
from autosparse.tasks.worker.scorer_split import Split
from tests.worker_jobs import job_on

SHAPE = (1, 8, 8)
SEEDS = range(10, 22)


@cache
def pictures() -> tuple[Tensor, Tensor]:
    stream = generator(0, "drift-pictures")
    labels = torch.randint(4, (512,), generator=stream)
    return torch.randn(4, *SHAPE, generator=stream)[labels] + 0.5 * torch.randn(512, *SHAPE, generator=stream), labels


def built(seed: int, *, scale: float = 1.0, init: Any = "kaiming_in", name: str = "resnet8", width: int = 4) -> nn.Module:
    network = build_network(NetworkSpec(name=name, width=width, init=init), image_shape=SHAPE, num_classes=4, seed=seed)
    if scale != 1:
        with torch.no_grad():
            for weight in (weight for weight in network.parameters() if weight.ndim > 1):
                weight *= scale
    return network


def batches(seed: int) -> list[tuple[Tensor, Tensor]]:
    images, labels = pictures()
    order = torch.randperm(len(labels), generator=generator(seed, "drift-batches"))[:256]
    return [(images[rows], labels[rows]) for rows in order.split(128)]


def look(seed: int, change: Callable[[Tensor], Tensor] | None = None, **network: Any) -> Seen:
    """A network as the guard sees it; `change` spoils the gradients."""
    params, gradients, _ = inputs(built(seed, **network), batches(seed))
    gradients = {name: change(values) if change else values for name, values in gradients.items()}
    watch = FirstLook(generator(seed, "look"))
    watch(params, gradients, layer_facts(params, gradients))
    return watch.found


@cache
def trained() -> Seen:
    return look(0)


def facts(name: str, *, depth: float = 0.0, numel: int = 4, fan_in: int = 2) -> LayerFacts:
    shape = (numel // 2, 2)
    return LayerFacts(
        name=name, kind="linear", shape=shape, fan_in=fan_in, fan_out=2, depth=depth, numel=numel, weight_std=1.0, gradient_rms=1.0
    )


def test_distance_by_hand() -> None:
    four = Column(values=(1, 2, 3, 4))
    assert distance(four, four) == 0
    assert distance(four, Column(values=(3, 4, 5, 6))) == 0.5  # at 2: 2/4 against 0
    assert distance(four, Column(values=(5, 6))) == 1
    assert distance(four, Column(values=(1, 9), shares=(0.9, 0.1))) == pytest.approx(0.65)  # at 1: 1/4 against .9
    assert distance(Column(values=(0.0, 1.0), shares=(0.3, 0.7)), Column(values=(0.0, 1.0), shares=(0.5, 0.5))) == pytest.approx(0.2)


def test_the_sketch_of_six_weights_by_hand() -> None:
    rows = torch.arange(6 * len(FEATURE_NAMES), dtype=torch.float32).view(6, -1)
    rows[:, 1] = 0.25  # a gradient that is the same everywhere
    seen = sketch(rows, [facts("a", depth=0.0, numel=4), facts("b", depth=1.0, numel=12), facts("c", depth=1.0, numel=4)])
    assert seen.rows == 6
    assert seen.columns["depth"] == Column(values=(0.0, 1.0), shares=(0.2, 0.8))  # 4 and 16 of 20 weights, though 6 were looked at
    assert seen.columns["gradient"] == Column(values=(0.25,), shares=(1.0,))
    weight = seen.columns["weight"]
    assert weight.shares is None and set(weight.values) == {0.0, 12.0, 24.0, 36.0, 48.0, 60.0}
    exact = Column(values=(0.0, 12.0, 24.0, 36.0, 48.0, 60.0))
    assert distance(weight, exact) < 1 / 257  # 257 points cannot stand for six weights any better


@pytest.mark.parametrize("sources", [(0,), (0, 1)])
def test_no_warning_for_the_same_definition_under_other_seeds(sources: tuple[int, ...]) -> None:
    training = {f"resnet8-w4-{seed}": look(seed) for seed in sources}
    assert [drift.warning for drift in (compare(training, look(seed)) for seed in SEEDS)] == [None] * len(SEEDS)


def warned(**changes: Any) -> dict[str, str]:
    return {column.column: column.kind for column in compare({"resnet8-w4": trained()}, look(10, **changes)).warned}


def test_weights_of_another_scale_are_a_shifted_distribution() -> None:
    found = warned(scale=3.0)
    assert found["weight"] == "shifted" and not {"new values"} & set(found.values())
    assert "weight_scaled" not in found and "log_weight" not in found  # a layer's own scale is taken out there
    assert warned(scale=1 / 3)["weight"] == "shifted"  # nothing lies beyond the training range, the distribution has shrunk


def test_another_init_is_a_shifted_distribution() -> None:
    found = warned(init="own")  # uniform and smaller
    assert {"weight", "weight_scaled", "log_weight"} <= {name for name, kind in found.items() if kind == "shifted"}


def test_spoiled_gradients_are_named() -> None:
    assert set(warned(change=torch.abs)) == {"gradient", "gradient_scaled"}  # its sign along the weight's is as random as before
    dead = warned(change=torch.zeros_like)
    assert dead["gradient"] == "shifted" and "weight" not in dead


def test_another_network_has_new_values_and_they_are_named() -> None:
    drift = compare({"resnet8-w4": trained()}, look(10, name="resnet20"))
    depth = next(column for column in drift.columns if column.column == "depth")
    # of resnet8 the depths are n/9, of resnet20 n/21: those that are a third of 0, 3/9 ... are known
    assert depth.kind == "new values" and len(depth.values) == 3
    assert all(min(abs(value - n / 21) for n in range(22)) < 1e-5 and round(9 * value, 3) % 1 for value in depth.values)
    assert drift.columns[0].kind == "new values" and drift.warning is not None
    assert (
        drift.warning.startswith("features unlike those of resnet8-w4, which the scorer learned from: ")
        and "depth (new values 0." in drift.warning
    )
    wider = warned(width=8)
    assert {name for name, kind in wider.items() if kind == "new values"} == {"log_fan_in", "log_fan_out", "log_numel"}


def test_new_values_are_told_apart_from_other_shares_of_old_ones() -> None:
    rows = torch.zeros(8, len(FEATURE_NAMES))
    known = sketch(rows, [facts("a", depth=0.0), facts("b", depth=1.0, numel=12)])
    other_shares = compare({"known": known}, sketch(rows, [facts("a", depth=0.0, numel=12), facts("b", depth=1.0, numel=4)]))
    assert {column.column: (column.kind, round(column.distance, 6)) for column in other_shares.warned} == {"depth": ("shifted", 0.5)}
    new = compare({"known": known}, sketch(rows, [facts("a", depth=0.5), facts("b", depth=1.0, numel=12)])).warned
    assert new == (Compared(column="depth", kind="new values", distance=0.25, threshold=0.05, new=0.25, values=(0.5,)),)


def test_one_constant_column_that_takes_another_value() -> None:
    rows = torch.zeros(8, len(FEATURE_NAMES))
    known, fan_in = sketch(rows, [facts("a")]), sketch(rows, [facts("a", fan_in=3)])
    (found,) = compare({"known": known}, fan_in).warned
    assert (found.column, found.kind, found.new) == ("log_fan_in", "new values", 1.0)
    assert str(found) == "log_fan_in (new values 1.1 in 100 % of weights)"


def test_the_nearest_of_several_sources_is_the_one_compared_with() -> None:
    drift = compare({"resnet20-w4": look(0, name="resnet20"), "resnet8-w4": trained()}, look(10))
    assert (drift.source, drift.warning) == ("resnet8-w4", None)


def test_few_weights_are_given_the_benefit_of_their_noise() -> None:
    stream = generator(3, "noise")
    alarms = 0
    for _ in range(100):
        rows = [torch.randn(60, len(FEATURE_NAMES), generator=stream) for _ in range(2)]
        first, second = (sketch(part, [facts("a")]) for part in rows)
        alarms += compare({"first": first}, second).warning is not None
    assert alarms < 6  # seven columns, one in a thousand each; at SHIFT alone every one of the 100 would be an alarm


def test_a_sample_is_drawn_row_by_row_and_a_small_network_is_seen_whole() -> None:
    chosen = picked(100_000, 0.1, generator(0, "pick"))
    assert abs(len(chosen) - 10_000) < 400 and bool((chosen.diff() > 0).all())
    assert torch.equal(picked(5, 1.5, generator(0, "pick")), torch.arange(5))


def test_only_the_first_network_is_looked_at_and_scores_stay_the_same() -> None:
    scorer, watch = build_scorer("mlp", hidden=(4,), seed=0), FirstLook(generator(0, "look"))
    with pytest.raises(RuntimeError, match="no network"):
        _ = watch.found
    plain = as_criterion(scorer)(built(3), batches(3), generator(3), density=0.1)
    seen = as_criterion(scorer, watch=watch)(built(3), batches(3), generator(3), density=0.1)
    assert all(torch.equal(plain[name], seen[name]) for name in plain)
    first = watch.found
    as_criterion(scorer, watch=watch)(built(4), batches(4), generator(4), density=0.1)
    assert watch.found is first and first.columns == look(3).columns


def test_a_card_keeps_what_was_seen_and_a_broken_one_is_refused() -> None:
    again = Seen.from_plain(json.loads(json.dumps(trained().to_plain())))
    assert again == trained()
    broken: tuple[Any, ...] = (
        {},
        [],
        {"rows": 3, "columns": {}},
        {**trained().to_plain(), "rows": 0},
        {**trained().to_plain(), "rows": "x"},
    )
    for data in broken:
        with pytest.raises(DataError, match=r"^scorer\.features_seen"):
            Seen.from_plain(data)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"))


def split(store: Store, tmp_path: Path) -> Split:
    """A feature data set of resnet8 under the seeds 0, 1 and 2; seed 2 and a third of the layers are held out."""
    parts = []
    for seed in range(3):
        params, gradients, layers = inputs(built(seed, scale=9.0 if seed == 2 else 1.0), batches(seed))
        metadata = {"source": "resnet8-w4", "seed": seed, "rounds": 1, "layers": [layer.to_plain() for layer in layers]}
        with write_shard(tmp_path / f"{seed}.parquet", metadata) as writer:
            for number, name in enumerate(params):
                columns = [values.detach().reshape(-1).numpy() for values in (params[name], gradients[name])]
                writer.add(number, *columns, *2 * [(columns[0] > 0).astype("uint8")])
        parts.append(writer.part)
    dataset = commit_dataset(store, "features", parts, {"rounds": 1, "features_version": 1})
    return Split(open_dataset(dataset.uri), spec())


def spec() -> ScorerSpec:
    return ScorerSpec(kind="mlp", epochs=1, batch_size=256, lr=0.01, holdout_layers=0.3, holdout_seeds=(2,))


def test_the_fit_looks_at_training_seeds_and_all_their_layers(store: Store, tmp_path: Path) -> None:
    found = split(store, tmp_path).features_seen(spec())
    assert list(found) == ["resnet8-w4"]
    seen = Seen.from_plain(found["resnet8-w4"])
    per_network = sum(weight.numel() for weight in built(0).parameters() if weight.ndim > 1)
    assert seen.rows == 2 * per_network  # not the third seed, whose weights are nine times as large
    assert {name: seen.columns[name] for name in LAYER_COLUMNS} == {name: trained().columns[name] for name in LAYER_COLUMNS}
    assert compare({"resnet8-w4": seen}, look(10)).warning is None


def scored(store: Store, method: str, network: nn.Module, card: dict[str, Any]) -> dict[str, Any] | None:
    scorer = build_scorer("mlp", hidden=(4,), seed=0)
    if method == "scorer_growth":
        scorer.allocation = Paths(contrast=0.5, contrast_ahead=1.0, blend=0.0)  # type: ignore[assignment]
    save_scorer(store, "scorer", scorer, card)
    inputs = ScoringInputs(
        **{"target": TargetSpec(network=NetworkSpec(name="resnet8", width=4)), "data": DataSpec(name="digits"), "seed": 10},
        **{"method": method, "densities": (0.5,), "min_per_layer": 0, "controls": (), "repair": False, "train": smoke().fanout.train},
        **{"scorer": "scorer", "step": "s"},
    )
    job, watch = job_on(store), FirstLook(generator(10, "look"))
    criterion, described = _method(job, inputs, watch)
    assert described is not None
    scoring = Scoring(job, inputs, network, criterion, batches(10), SHAPE)
    if method == "scorer":
        scoring.scores(scoring.batches)
    return scoring.drift(described, watch, open_problem(inputs.data, None))


@pytest.mark.parametrize("method", ["scorer", "scorer_growth"])  # the second ranks by growth alone: the guard looks for itself
def test_the_scoring_step_reports_the_columns_the_worst_first(store: Store, method: str) -> None:
    card = {"features_seen": {"resnet8-w4": trained().to_plain()}}
    same, other = scored(store, method, built(10), card), scored(store, method, built(10, scale=9.0), card)
    assert same is not None and same["warning"] is None and len(same["columns"]) == len(FEATURE_NAMES)
    assert other is not None and (other["columns"][0]["column"], other["columns"][0]["kind"]) == ("weight", "shifted")
    assert "weight (shifted, distance" in other["warning"] and "\n" not in other["warning"]
    json.dumps(other)


def test_a_card_from_before_the_guard_still_loads_and_says_nothing(store: Store) -> None:
    assert scored(store, "scorer", built(10), {"metrics": {}}) is None
    assert features_seen(load_scorer(store, "scorer")[1]) is None


@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")  # images lie in a cache that is mapped read-only
def test_prune_warns_and_writes_the_mask_all_the_same(clean_settings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, card in (("old", {}), ("new", {"features_seen": {"resnet8-w4": trained().to_plain()}})):
        save_scorer(open_store(str(tmp_path)), name, build_scorer("mlp", hidden=(4,), seed=0), card)
        options: Any = {"batches": 1, "batch_size": 64, "min_per_layer": 0, "seed": 0, "details": True}
        prune_network("examples.own_network:build", str(tmp_path / name), 0.1, "digits", tmp_path / f"{name}.safetensors", **options)
        said = " ".join(capsys.readouterr().out.split())
        assert ("different from resnet8-w4, which the scorer learned from" in said) == (name == "new")
        assert ("features unlike those of resnet8-w4, which the scorer learned from: " in said) == (name == "new")  # with --details
    old, new = (load_tensors((tmp_path / f"{name}.safetensors").read_bytes()) for name in ("old", "new"))
    assert old.keys() == new.keys() and all(torch.equal(old[layer], new[layer]) for layer in old)
