"""Claims on paper: paired differences, gap closure, shuffle, cost; a dash for whatever a run does not have."""

import json
import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from autosparse.storage.paths import RunPaths
from autosparse.storage.store import Store
from autosparse.tasks.results.arm_reports import opened
from autosparse.tasks.results.claims import HEAD, MORE, claim_cells, claims, claims_table
from autosparse.tasks.results.ledger import Ledger, MethodCost
from autosparse.tasks.results.record import load_record
from autosparse.tasks.summarize_arms import _store_claims

PAIR = math.sqrt(2)


def arms(
    accuracies: dict[str, tuple[float | None, ...]], density: float = 0.05, seconds: float = 100.0, target: str = "net"
) -> list[dict[str, Any]]:
    same = {"target": target, "dataset": "digits", "density": density, "seconds": seconds, "status": "ok"}
    return [
        opened({**same, "method": method, "seed": seed, "accuracy": accuracy})
        for method, values in accuracies.items()
        for seed, accuracy in enumerate(values)
    ]


def scoring(method: str, *seconds: float, target: str = "net") -> list[dict[str, Any]]:
    return [opened({"target": target, "method": method, "seed": seed, "seconds": value}) for seed, value in enumerate(seconds)]


def costs(**scorings: float) -> Ledger:
    methods = [MethodCost(method=name, scoring=value, scoring_n=1, retraining=100.0, retraining_n=1) for name, value in scorings.items()]
    return Ledger(irp=1000.0, sources=2, rounds=4, features=30.0, fit=70.0, methods=methods, whole=True)


FIELD: dict[str, tuple[float | None, ...]] = {
    "ticket": (0.80, 0.80),
    "snip": (0.60, 0.62),
    "synflow": (0.64, 0.66),
    "growth": (0.70, 0.69),
    "scorer": (0.66, 0.70),
    "scorer+shuffle": (0.64, 0.70),
    "scorer_growth": (0.72, 0.73),
}
SCORES = [*scoring("scorer", 3.0, 5.0), *scoring("scorer_growth", 24.0, 26.0), *scoring("scorer", 99.0, target="other")]


def test_both_tracks_by_hand() -> None:
    strict, ahead = claims(arms(FIELD), SCORES, costs(scorer=4.0, scorer_growth=25.0))
    assert (strict.track, strict.value, strict.n) == ("strict", pytest.approx(0.68), 2)
    assert strict.best is not None and strict.best == strict.best_at_init and strict.growth is None  # growth is no rival here
    assert (strict.best.rival, strict.best.over.mean, strict.best.over.n) == ("synflow", pytest.approx(0.03), 2)  # .02 and .04
    assert strict.best.over.error == pytest.approx(0.01)  # their std is .02 / sqrt 2, over sqrt 2
    assert strict.best.over.p_value == pytest.approx(1 - 2 * math.atan(3) / math.pi)  # t = 3, one degree of freedom: Cauchy
    assert strict.closure == pytest.approx(0.2)  # (.68 - .65) / (.80 - .65)
    assert strict.shuffle is not None and strict.shuffle.mean == pytest.approx(0.01)  # .02 and 0
    assert strict.weights == "weights matter"
    assert (strict.scoring, strict.retraining, strict.share) == (4.0, 100.0, 0.04)  # not the other target's 99 s
    assert strict.reuses == pytest.approx(1100 / 496)  # (1000 + 30 + 70) / (1000 / 2 - 4)

    assert ahead.track == "lookahead" and ahead.shuffle is None and ahead.weights is None
    assert ahead.best is not None and ahead.growth is not None and ahead.best_at_init is not None
    assert (ahead.best.rival, ahead.growth.rival, ahead.best_at_init.rival) == ("growth", "growth", "synflow")
    assert ahead.growth.over.mean == pytest.approx(0.03) and ahead.growth.over.std == pytest.approx(0.02 / PAIR)  # .02 and .04
    assert ahead.best_at_init.over.mean == pytest.approx(0.075)  # .08 and .07
    assert ahead.closure == pytest.approx(0.5)  # (.725 - .65) / .15
    assert (ahead.scoring, ahead.reuses) == (25.0, pytest.approx(1100 / 475))  # the probe is in the seconds


def test_a_lookahead_track_whose_best_rival_does_not_look_ahead() -> None:
    (claim,) = claims(arms({"synflow": (0.7,), "growth": (0.6,), "scorer_growth": (0.65,)}), [], costs())
    assert claim.best is not None and claim.growth is not None
    assert (claim.best.rival, claim.best.over.mean, claim.growth.over.mean) == ("synflow", pytest.approx(-0.05), pytest.approx(0.05))


def test_what_is_missing_is_a_dash() -> None:
    (claim,) = claims([{**arm, "status": "old"} for arm in arms({"scorer": (0.5,)})], [], costs())
    assert claim_cells(claim) == ["net", "digits", "0.05", "scorer (strict)", "0.5000 (n=1)", *["-"] * 8]
    (alone,) = claims(arms({"scorer": (0.5, None), "snip": (0.4, 0.9), "scorer+shuffle": (None, 0.4)}), [], replace(costs(), whole=False))
    assert claim_cells(alone)[4:7] == ["0.5000 (n=1)", "+0.1000 snip (n=1)", "+0.1000 snip (n=1)"]  # one seed: no error, no test
    assert claim_cells(alone)[7:] == ["-", "-", "-", "-", "-", "-"]
    assert claims(arms({"snip": (0.4,), "scorer": (None,)}), [], costs()) == []
    assert claims(arms({"scorer": (0.4,)}, density=1.0), [], costs()) == []


def test_weights_matter_from_a_point_on() -> None:
    for shuffled, said in (((0.67, 0.69), "weights matter"), ((0.6701, 0.69), "only layer densities matter")):
        (claim,) = claims(arms({"scorer": (0.68, 0.70), "scorer+shuffle": shuffled}), [], costs())
        assert claim.weights == said


def test_the_table_and_the_rows_by_target_and_falling_density() -> None:
    everything = [*arms(FIELD, density=0.02, target="b"), *arms(FIELD, target="b"), *arms({"scorer": (0.9, 0.9)}, target="a")]
    found = claims(everything, SCORES, costs(scorer=4.0))
    assert [(claim.target, claim.density, claim.method) for claim in found] == [
        ("a", 0.05, "scorer"),
        ("b", 0.05, "scorer"),
        ("b", 0.05, "scorer_growth"),
        ("b", 0.02, "scorer"),
        ("b", 0.02, "scorer_growth"),
    ]
    lines = claims_table(claims(arms(FIELD), SCORES, costs(scorer=4.0))).splitlines()
    assert len(lines) == 4 and lines[0].count("|") == len(HEAD) + len(MORE) + 1
    assert lines[2] == (
        "| net | digits | 0.05 | scorer (strict) | 0.6800 (n=2) | +0.0300 ± 0.0100 synflow (n=2, p=0.2) "
        "| +0.0300 ± 0.0100 synflow (n=2, p=0.2) | - | 20.0 % | +0.0100 ± 0.0100 (n=2, p=0.5) | weights matter "
        "| 4.0 s / 100.0 s (4.0 %) | 2.22 reuses |"
    )
    plain = json.loads(json.dumps(found[1].to_plain()))
    assert plain["best"]["rival"] == "synflow" and plain["best"]["error"] == pytest.approx(0.01) and plain["closure"] == pytest.approx(0.2)


def test_the_summary_stores_claims_and_what_the_guard_said(made: SimpleNamespace, tmp_path: Any) -> None:
    store: Store = made.run(tmp_path)
    key = f"{RunPaths(made.name).scores(made.target, 10, 'scorer')}/report.json"
    column = {"column": "depth", "kind": "alike", "distance": 0.0, "threshold": 0.05, "new": 0.0, "values": []}
    store.write_json(key, {**store.read_json(key), "drift": {"source": "net", "warning": None, "columns": [column] * 12}})
    kept: list[str] = []
    tracker = SimpleNamespace(file=lambda run, name, content: kept.append(name))
    run: Any = SimpleNamespace(store=store, name=made.name, paths=RunPaths(made.name), tracker=tracker, mlflow_run="1")
    records = [store.read_json(key) for key in store.list(f"{run.paths.root}/fanout") if key.endswith("report.json")]
    told = _store_claims(run, [opened(record) for record in records if "accuracy" in record], load_record(store, made.name))
    assert kept == ["summary/claims.json", "summary/claims.md"]
    assert [(claim["density"], claim["best"]["rival"]) for claim in told["claims"]] == [(0.1, "snip"), (0.02, "snip")]
    assert store.read_json(f"{run.paths.summary}/claims.json") == told["claims"]
    assert [(row["seed"], row["source"], len(row["worst"])) for row in told["drift"]] == [(10, "net", 3)]
