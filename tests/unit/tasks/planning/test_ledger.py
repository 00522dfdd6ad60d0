"""Rates out of reports: worked out by hand from a run whose reports are written here."""

from pathlib import Path
from typing import Any

import pytest

from autosparse.flows.recipes import smoke
from autosparse.models.specs.fields import fingerprint, override, to_plain
from autosparse.storage import reports
from autosparse.storage.open_store import open_store
from autosparse.storage.paths import RunPaths
from autosparse.storage.store import Store
from autosparse.tasks.planning import steps as kinds
from autosparse.tasks.planning.costs import FIXED_S, MORE_EPOCHS, SERIES, Examples, Pace, fitted_rows
from autosparse.tasks.planning.ledger import known_rates
from autosparse.tasks.planning.plan import rows_of, stored_plan
from autosparse.tasks.planning.schedule import Place
from autosparse.tasks.planning.steps import steps_of

# 512 and 128 images in batches of 128, one epoch: 4 1/3 steps
SPEC = override(smoke(), {"fanout.methods": ["snip", "rigl"], "fanout.seeds": [10, 11]})
UNITS = 4 + 1 / 3


def begin(store: Store, name: str, spec: Any = SPEC, started: str = "2026-11-01T00:00:00Z") -> RunPaths:
    run = RunPaths(name)
    store.write_json(run.spec, {"spec": to_plain(spec), "fingerprint": fingerprint(spec), "name": name})
    store.write_json(run.run, {"started": started})
    return run


def done(store: Store, run: RunPaths, kinds_done: set[str], step_s: float, spec: Any = SPEC) -> None:
    """Reports of those kinds: trainings of so much a step, 10 s beside a round, 2 s beside an arm, once 14 s."""
    arms = 0
    for step in steps_of(spec, run):
        if step.kind not in kinds_done:
            continue
        report: dict[str, Any] = {"seconds": 5.0}
        if step.kind == kinds.DATA:
            report |= {"train": 512, "test": 128}
        if step.kind in (kinds.ROUND, kinds.ARM):
            factor = 3 if (step.method or "").startswith("rigl") else 1
            beside = 10.0 if step.kind == kinds.ROUND else (14.0 if arms == 0 else 2.0)
            arms += step.kind == kinds.ARM
            report = {"epochs": [{"seconds": step_s * UNITS * factor}], "seconds": step_s * UNITS * factor + beside}
        if step.kind == kinds.SCORING:
            report |= {"scoring_seconds": 4.0}
        if step.kind == kinds.FIT:
            report["seconds"] = 21.0
        reports.save(store, step.key, report)


def pace(spec: Any = SPEC) -> Pace:
    return Pace.of(spec.irp.networks[0], spec.data, spec.irp.train, spec.irp.job)


def test_a_runs_own_reports(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    run = begin(store, "own")
    done(store, run, set(kinds.KINDS), step_s=0.5)
    rates, said, finished = known_rates(store, run, SPEC, rows_of(SPEC))
    assert rates.steps == {pace(): pytest.approx(0.5)} and rates.examples == {SPEC.data: Examples(512, 128)}
    assert rates.methods == {("lenet300-100", "rigl"): pytest.approx(3.0)} and rates.scorings == {("lenet300-100", "snip"): 4.0}
    assert rates.fixed[kinds.ROUND] == pytest.approx(10) and rates.fixed[kinds.ARM] == pytest.approx(2)
    assert rates.fixed[SERIES] == pytest.approx(13)  # the first arm waited for its process, a scoring took one second beside its work
    # starts take 5 / 3, 10 / 8, 5 / 3, 1 / .4, 2 / 1.2, 5 / 4 of what is usual: in the middle 5 / 3
    assert rates.slowness == pytest.approx(5 / 3)
    rows = fitted_rows(SPEC, rates.rows) * (SPEC.scorer.epochs + MORE_EPOCHS)
    assert rates.row == pytest.approx((21 - FIXED_S[kinds.FIT] * 5 / 3) / rows)
    assert said == ["trainings of this run (8)"]
    assert finished == {step.key for step in steps_of(SPEC, run)}


def test_a_run_that_was_broken_off(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    run = begin(store, "own")
    done(store, run, {kinds.DATA, kinds.ROUND}, step_s=0.5)
    found = stored_plan(store, run, SPEC, Place(cpus=2, gpus=0), price=3600.0)
    assert found.to_do[0][0].kind == kinds.FEATURES and found.trainings == 6
    scoring = next(cost for step, cost in found.to_do if step.kind == kinds.SCORING)
    assert scoring.work == pytest.approx(0.5 + 4 * (0.5 / 128 + 0.005))  # no report speaks of a pass of one example
    done(store, run, {*kinds.KINDS} - {kinds.ARM, kinds.SUMMARY}, step_s=0.5)
    found = stored_plan(store, run, SPEC, Place(cpus=2, gpus=0), price=3600.0)
    assert [step.kind for step, _ in found.to_do] == [kinds.ARM] * 6 + [kinds.SUMMARY]
    assert found.seconds and found.whole_price == pytest.approx(found.seconds)
    assert found.guesses == ["rigl: 1 times a plain step"]


def test_an_earlier_run_of_the_same_training_fills_the_gaps(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    done(store, begin(store, "before"), set(kinds.KINDS), step_s=0.5)
    other = override(SPEC, {"irp.train.batch_size": 64, "fanout.train.batch_size": 64})
    done(store, begin(store, "other", other, "2026-12-01T00:00:00Z"), set(kinds.KINDS), 0.2, other)
    longer = override(SPEC, {"irp.rounds": 7, "fanout.densities": [0.5, 0.2, 0.1], "fanout.train.epochs": 3})
    found = stored_plan(store, RunPaths("new"), longer, Place(cpus=2, gpus=0))
    assert found.rates.steps[pace()] == pytest.approx(0.5)
    assert found.known_from == ("run other", "run before") and len(found.done) == 0
    assert found.trainings == 7 + 2 * (1 + 3 * 2) and found.examples == 7 * 512 + 14 * 3 * 512
    assert found.seconds


def test_what_cannot_be_read_of_an_earlier_run_is_left_out(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    run = begin(store, "before")
    store.write_json(run.spec, {"spec": {"of": "another version"}})
    found = stored_plan(store, RunPaths("new"), SPEC, Place(cpus=2, gpus=0))
    assert found.known_from == () and found.seconds is None and found.examples is None
    assert "`autosparse plan` measures how long it takes" in found.line() and "not known before" in found.markdown()
