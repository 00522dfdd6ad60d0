"""What people see of the progress of a run."""

from types import SimpleNamespace

import pytest

from autosparse.flows.console import RunProgress, expected, line, shown
from autosparse.flows.recipes import compare, demo, small_cifar
from autosparse.models.specs.fields import override
from autosparse.tasks.engine.progress import Event, emit


def test_expected_counts_of_the_scale_model() -> None:
    # 10 rounds; 7 methods x 2 densities, dense, 2 tickets
    assert expected(small_cifar()) == {"rounds": 10, "arms": 17}
    # 2 sources x 3 rounds; 2 seeds of 5 methods x 2 densities and dense, 2 tickets of each source
    assert expected(demo()) == {"rounds": 6, "arms": 26}
    # 3 seeds of 6 methods x 2 densities and dense; no sources, so no rounds to speak of
    assert expected(compare()) == {"arms": 39}
    # each of the 16 arms of a mask twice more
    assert expected(override(demo(), {"fanout.controls": ["shuffle", "reinit"]})) == {"rounds": 6, "arms": 58}


def test_progress_counts_rounds_arms_and_cached_steps() -> None:
    progress = RunProgress(small_cifar())
    assert progress.seconds_left() is None
    progress.take(Event("cached", "runs/x/irp/net-seed0/round-000"))
    progress.take(Event("started", "runs/x/irp/net-seed0/round-001", "round 1"))
    progress.take(
        Event("epoch", "runs/x/irp/net-seed0/round-001", "round 1", {"epoch": 3, "epochs": 6, "metric": "accuracy", "value": 0.5})
    )
    assert progress.now["runs/x/irp/net-seed0/round-001"][1] == 0.5
    progress.take(Event("finished", "runs/x/irp/net-seed0/round-001"))
    progress.take(Event("finished", "runs/x/fanout/net/seed1/snip/density-0.05"))
    progress.take(Event("finished", "runs/x/fanout/net/seed1/snip"))
    assert progress.done == {"rounds": 2, "arms": 1}


def test_minutes_left_go_by_the_pace_since_the_first_of_a_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr("autosparse.flows.console.time", SimpleNamespace(monotonic=lambda: clock.now))
    progress = RunProgress(small_cifar())  # 10 rounds, 17 arms

    def done(kind: str, number: int, now: float, share: float | None = None) -> float | None:
        step = {"round": f"runs/x/irp/net-seed0/round-{number:03d}", "arm": f"runs/x/fanout/net/seed{number}/snip/density-0.05"}[kind]
        clock.now = now
        told = {"epoch": share, "epochs": 1, "metric": "accuracy", "value": 0.5}
        progress.take(Event("finished", step) if share is None else Event("epoch", step, "", told))
        return progress.seconds_left()

    assert done("round", 0, 60.0) is None  # a minute of starts says nothing of the others
    assert done("round", 1, 65.0, share=0.5) == pytest.approx(25.5 * 10)  # half a round in 5 s
    assert done("round", 1, 70.0) == pytest.approx(25 * 10)
    for number in range(2, 10):
        done("round", number, 70.0 + 10 * (number - 1))
    assert done("arm", 0, 180.0) is None  # its process had to start, too
    assert done("arm", 1, 182.0) == pytest.approx(15 * 2)
    for number in range(2, 17):
        left = done("arm", number, 182.0 + 2 * (number - 1))
    assert left == 0


def test_lines() -> None:
    assert line(Event("finished", "s", "round 1", {"accuracy": 0.5, "seconds": 2.0})) == "[done] round 1: accuracy 0.5 (2.0 s)"
    assert line(Event("cached", "s", "round 0", {"density": 1.0})) == "[cached] round 0: density 1"
    assert line(Event("warning", "s", "data birds: 3 files are left out")) == "[note] data birds: 3 files are left out"
    assert line(Event("epoch", "s", "round 0", {})) is None


def test_plain_lines_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with shown(small_cifar()):
        emit("finished", "runs/x/irp/net-seed0/round-000", "round 0", accuracy=0.25, seconds=1.0)
        emit("finished", "runs/x/irp/net-seed0/round-001", "round 1", accuracy=0.5, seconds=1.0)
    emit("finished", "runs/x/irp/net-seed0/round-002", "round 2", accuracy=0.25, seconds=1.0)
    printed = capsys.readouterr().out
    first, second = printed.splitlines()
    assert first == "[done] round 0: accuracy 0.25 (1.0 s)  [1/10 rounds, 0/17 arms]"
    assert second.startswith("[done] round 1: accuracy 0.5 (1.0 s)  [2/10 rounds, 0/17 arms, about")
    assert "round 2" not in printed
