"""Cost and break-even on paper."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from autosparse.models.specs.run_specs import DataSpec, NetworkSpec
from autosparse.storage.paths import RunPaths, report
from autosparse.tasks.results.ledger import Ledger, MethodCost, ledger, macs_cost, target_macs
from autosparse.tasks.results.record import load_record


def costs(**changes: object) -> Ledger:
    scorer = MethodCost(method="scorer", scoring=20.0, scoring_n=2, retraining=40.0, retraining_n=2)
    base = Ledger(irp=240.0, sources=2, rounds=4, features=10.0, fit=50.0, methods=[scorer], whole=True)
    return replace(base, **changes)


def test_break_even_by_hand() -> None:
    assert costs().break_even == (3.0, "")  # (240 + 10 + 50) / (240 / 2 - 20)
    assert costs().networks == 3
    assert costs(fit=50.5).networks == 4
    assert costs().methods[0].share == 0.5


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"fit": None}, "no scorer fit"),
        ({"irp": None, "features": None}, "no IRP and no features"),
        ({"methods": []}, "no scoring by the scorer"),
        ({"whole": False}, "the IRP is not finished"),
        ({"irp": 40.0}, "scoring costs no less than an IRP"),
    ],
)
def test_break_even_that_is_not_defined(changes: dict, why: str) -> None:
    assert costs(**changes).break_even == (None, why)
    assert costs(**changes).networks is None


def test_seconds_come_from_the_reports(made: SimpleNamespace, tmp_path: Path) -> None:
    found = ledger(load_record(made.run(tmp_path), made.name))
    assert (found.irp, found.sources, found.rounds, found.features, found.fit, found.whole) == (240.0, 2, 4, 10.0, 50.0, True)
    assert found.irp_per_network == 120.0
    assert found.break_even == (3.0, "")
    by_method = {cost.name: cost for cost in found.methods}
    assert [cost.method for cost in found.methods][:2] == ["dense", "ticket"]
    assert by_method["dense"].scoring is None
    assert by_method["snip"] == MethodCost(method="snip", scoring=2.0, scoring_n=2, retraining=40.0, retraining_n=4)
    assert by_method["magnitude"].retraining_n == 3  # the failed arm was not trained to its end
    assert by_method["snip+invert"].retraining is None


def test_a_round_that_is_missing_leaves_the_break_even_open(made: SimpleNamespace, tmp_path: Path) -> None:
    store = made.run(tmp_path)
    store.delete(report(RunPaths(made.name).round(made.target, 1, 1)))
    assert ledger(load_record(store, made.name)).break_even == (None, "the IRP is not finished")


def test_multiply_adds_by_hand(made: SimpleNamespace, tmp_path: Path) -> None:
    record = load_record(made.run(tmp_path), made.name)
    data = record.data["data"]
    macs = target_macs(NetworkSpec(name="lenet300-100"), DataSpec(name="digits"), data)
    assert list(macs.values()) == [64 * 300, 300 * 100, 100 * 10]
    dense = macs_cost(macs, None, record, data)
    assert (dense.forward, dense.training, dense.share) == (50_200, 3 * 50_200 * 512, 1.0)  # one epoch of 512 images
    layers = dict(zip(macs, (1.0, 0.1, 0.5), strict=True))
    assert macs_cost(macs, layers, record, data).forward == pytest.approx(19_200 + 3_000 + 500)
