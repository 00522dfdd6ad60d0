"""Forged cards: the registry refuses a scorer that was judged or tested on its own training, before MLflow hears of it."""

import logging
import warnings
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from autosparse.flows.recipes import smoke
from autosparse.library.scorer_files import save_scorer
from autosparse.models.errors import LeakError
from autosparse.models.features import layer_facts
from autosparse.models.gradients import mean_gradients
from autosparse.models.masks.mask import prunable
from autosparse.models.networks.build import build_network
from autosparse.models.scorers.registry import build_scorer
from autosparse.models.specs.run_specs import NetworkSpec, ScorerSpec
from autosparse.storage import paths
from autosparse.storage.feature_table import commit_dataset, open_dataset, write_shard
from autosparse.storage.open_store import open_store
from autosparse.storage.paths import RunPaths
from autosparse.tasks import register_scorer as registration
from autosparse.tasks import settings
from autosparse.tasks.checks.leak_check import check_leaks, seeds_of_arms
from autosparse.tasks.engine import step as steps
from autosparse.tasks.tracking.tracker import REGISTERED_MODEL, Tracker
from autosparse.tasks.worker.fit_scorer import _compare
from autosparse.tasks.worker.scorer_split import Split
from tests.worker_jobs import job_on

CARD: dict[str, Any] = {
    "trained_on": {
        "seeds": [0, 1],
        "sources": ["resnet8-w4"],
        "held_out_seeds": [2],
        "held_out_layers": {"resnet8-w4": ["stem.weight"]},
        "layers": ["resnet8-w4-0/head.weight", "resnet8-w4-1/head.weight"],
    },
    "evaluated_on": {"seeds": ["resnet8-w4-2/stem.weight", "resnet8-w4-2/head.weight"], "layers": ["resnet8-w4-0/stem.weight"]},
    "metrics": {"seeds": {"spearman_pooled": 0.5}, "layers": {"spearman_pooled": 0.4}},
}


def forged(**changes: Any) -> dict[str, Any]:
    """The card with `part__field=value` in place of what it said; None takes the field out."""
    card = deepcopy(CARD)
    for name, value in changes.items():
        part, _, field = name.partition("__")
        if value is None:
            del card[part][field]
        else:
            card[part][field] = value
    return card


def test_an_honest_card_passes() -> None:
    check_leaks(CARD, [10, 11])
    check_leaks(forged(metrics__seeds=None, trained_on__held_out_seeds=[], evaluated_on__seeds=[]), [10])
    old = forged(trained_on__layers=None)
    del old["evaluated_on"]
    check_leaks(old, [10])


@pytest.mark.parametrize(
    ("card", "tests", "said"),
    [
        (forged(trained_on__held_out_seeds=[1, 2]), [], "scorer.evaluated_on: seed 1 is not allowed; allowed: seeds of resnet8-w4 that"),
        (forged(evaluated_on__seeds=["resnet8-w4-0/stem.weight"]), [], "scorer.evaluated_on: seed 0 is not allowed"),
        (forged(evaluated_on__seeds=["vgg11-w8-1/stem.weight"]), [], "scorer.evaluated_on: seed 1 is not allowed"),  # of another source
        (forged(trained_on__layers=["resnet8-w4-2/head.weight"]), [], "scorer.evaluated_on: seed 2 is not allowed"),
        (forged(evaluated_on__layers=["resnet8-w4-1/head.weight"]), [], "scorer.evaluated_on: layer resnet8-w4/head.weight is not allowed"),
        (CARD, [10, 1], "fanout.seeds: seed 1 is not allowed; allowed: test seeds outside the scorer's training set [0, 1]"),
        (CARD, [2], "fanout.seeds: seed 2 is not allowed; allowed: test seeds by which the scorer was not chosen"),
        (forged(trained_on__seeds=[], trained_on__layers=[]), [], "scorer.trained_on: its card names no seed"),
        ({"metrics": {}}, [], "scorer.trained_on: its card names no seed"),
        (forged(trained_on__held_out_seeds=[], evaluated_on__seeds=[]), [], "scorer.metrics: figures of held-out seeds, but no seed"),
        (forged(evaluated_on__seeds=["seed 1"]), [], "scorer.trained_on: 'seed 1' is not allowed; allowed: SOURCE-SEED/LAYER"),
    ],
)
def test_a_leak_is_refused_in_one_line(card: dict[str, Any], tests: list[int], said: str) -> None:
    with pytest.raises(LeakError) as caught:
        check_leaks(card, tests)
    assert str(caught.value).startswith(said) and "\n" not in str(caught.value)


def test_a_layer_of_the_same_name_in_another_source_is_no_leak() -> None:
    check_leaks(forged(evaluated_on__layers=["vgg11-w8-0/head.weight"]), [])


def test_test_seeds_are_those_planned_and_those_of_arms_that_are_there(tmp_path: Path) -> None:
    store, base, run = open_store(str(tmp_path)), smoke(), RunPaths("scorer")
    spec = replace(base, fanout=replace(base.fanout, methods=("snip",), seeds=(10, 11)))
    assert seeds_of_arms(store, run, spec) == set()
    assert seeds_of_arms(store, run, replace(spec, fanout=replace(spec.fanout, methods=("snip", "scorer")))) == {10, 11}
    own = tuple(replace(target, methods=("scorer",)) for target in spec.fanout.targets)  # the scorer on a target alone
    assert seeds_of_arms(store, run, replace(spec, fanout=replace(spec.fanout, targets=own))) == {10, 11}
    for method, seed in (("snip", 1), ("scorer", 5), ("scorer_growth", 6)):
        store.write_json(paths.report(run.scores("net", seed, method)), {"method": method, "seed": seed})
    store.write_json(paths.report(run.arm("net", 7, "scorer", 0.1, "shuffle")), {"method": "scorer+shuffle", "seed": 7})
    assert seeds_of_arms(store, run, spec) == {5, 6, 7}


@pytest.fixture
def run(clean_settings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A run with a real MLflow store, and nothing in it yet."""
    monkeypatch.setattr(registration, "log", lambda: logging.getLogger("flow"))  # Prefect's needs a flow run
    monkeypatch.setattr(steps, "log", lambda: logging.getLogger("flow"))
    found = settings.load()
    settings.export(found)
    tracker = Tracker(found, {"autosparse.run": "leaky", "prefect.flow_run_id": "1", "ray.job_id": "2"})
    fields = {"store": open_store(str(tmp_path / "storage")), "paths": RunPaths("leaky"), "spec": smoke(), "tracker": tracker}
    with tracker.closing():
        yield SimpleNamespace(**fields, mlflow_run=tracker.open("run", "leaky"), cluster=SimpleNamespace(stopped=False))


def register(run: Any, card: dict[str, Any]) -> Any:
    save_scorer(run.store, run.paths.scorer, build_scorer("mlp", hidden=(4,), seed=0), card)
    run.tracker.open(run.paths.scorer, "fit", parent=run.mlflow_run)
    fitted = {"metrics": CARD["metrics"], "kind": "mlp"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.export and MLflow warn of their own code
        return registration.register_scorer.fn(run, {"digest": "d" * 32}, fitted, "register")


def in_mlflow(tracker: Tracker) -> tuple[int, int]:
    """Runs and registered models."""
    assert tracker.spool.drain(30)
    return len(tracker.client.search_runs([tracker.experiment_id])), len(tracker.client.search_registered_models())


@pytest.mark.parametrize("leak", [{"trained_on__held_out_seeds": [1]}, {"evaluated_on__seeds": ["resnet8-w4-0/head.weight"]}])
def test_nothing_of_a_leaky_scorer_reaches_mlflow_and_an_honest_one_does(run: Any, leak: dict[str, Any]) -> None:
    with pytest.raises(LeakError, match="evaluated_on"):
        register(run, forged(**leak))
    assert in_mlflow(run.tracker) == (2, 0)  # the run and the fit: no run of the registration, no model
    assert not [key for key in run.store.list(run.paths.scorer) if "registration" in key]
    register(run, CARD)
    assert in_mlflow(run.tracker) == (3, 1)
    assert [version.version for version in run.tracker.client.search_model_versions(f"name = '{REGISTERED_MODEL}'")] in (["1"], [1])


def test_an_arm_on_a_training_seed_is_found_on_a_resumed_run(run: Any) -> None:
    register(run, CARD)
    run.store.write_json(paths.report(run.paths.scores("net", 1, "scorer")), {"method": "scorer", "seed": 1})
    with pytest.raises(LeakError, match=r"^fanout\.seeds: seed 1 is not allowed"):
        register(run, CARD)


def test_the_fit_writes_down_what_it_was_trained_and_judged_on(tmp_path: Path) -> None:
    store, parts, names = open_store(str(tmp_path / "store")), [], []
    stream = torch.Generator().manual_seed(0)
    for seed in range(3):
        network = build_network(NetworkSpec(name="lenet300-100"), image_shape=(1, 4, 4), num_classes=4, seed=seed)
        params = prunable(network)
        batch = (torch.randn(16, 1, 4, 4, generator=stream), torch.arange(16) % 4)
        gradients = mean_gradients(network, [batch], params)
        layers, names = layer_facts(params, gradients), list(params)
        metadata = {"source": "lenet", "seed": seed, "rounds": 1, "layers": [layer.to_plain() for layer in layers]}
        with write_shard(tmp_path / f"{seed}.parquet", metadata) as writer:
            for number, name in enumerate(params):
                weight = params[name].detach().reshape(-1).numpy()
                writer.add(number, weight, gradients[name].reshape(-1).numpy(), *2 * [(weight > 0).astype("uint8")])
        parts.append(writer.part)
    ref = commit_dataset(store, "features", parts, {"rounds": 1, "features_version": 1})
    spec = ScorerSpec(kind="mlp", epochs=1, batch_size=512, lr=0.01, holdout_layers=0.3, holdout_seeds=(2,))
    split = Split(open_dataset(ref.uri), spec)
    job = job_on(store)
    assert sum(len(target) for _, target in split.batches(spec, job, 0)) > 0
    (held,) = split.description["held_out_layers"]["lenet"]
    assert split.trained_layers == sorted(f"lenet-{seed}/{name}" for seed in (0, 1) for name in names if name != held)
    scorer = build_scorer("mlp", hidden=(4,), seed=0)
    judged = {group: _compare(scorer, scorer, split, group, job.device)[1] for group in ("seeds", "layers")}
    assert judged == {"seeds": sorted(f"lenet-2/{name}" for name in names), "layers": [f"lenet-0/{held}", f"lenet-1/{held}"]}
    card = {"trained_on": {**split.description, "layers": split.trained_layers}, "evaluated_on": judged, "metrics": dict.fromkeys(judged)}
    check_leaks(card, [10])
    split.held_layers[0].clear()  # as a bug in the split would have it
    list(split.batches(spec, job, 0))
    with pytest.raises(LeakError, match=f"layer lenet/{held}"):
        check_leaks({**card, "trained_on": {**split.description, "layers": split.trained_layers}}, [10])
