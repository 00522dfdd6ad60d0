"""What people see of the progress of a run."""

import pytest

from autosparse.flows.console import RunProgress, expected, line, shown
from autosparse.flows.recipes import demo, small_cifar
from autosparse.models.specs.fields import override
from autosparse.tasks.engine.progress import Event, emit


def test_expected_counts_of_the_scale_model() -> None:
    # 10 rounds; 7 methods x 2 densities, dense, 2 tickets
    assert expected(small_cifar()) == {"rounds": 10, "arms": 17}
    # 2 sources x 3 rounds; 2 seeds of 5 methods x 2 densities and dense, 2 tickets of each source
    assert expected(demo()) == {"rounds": 6, "arms": 26}
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
    assert progress.seconds_left() is not None


def test_lines() -> None:
    assert line(Event("finished", "s", "round 1", {"accuracy": 0.5, "seconds": 2.0})) == "[done] round 1: accuracy 0.5 (2.0 s)"
    assert line(Event("cached", "s", "round 0", {"density": 1.0})) == "[cached] round 0: density 1"
    assert line(Event("warning", "s", "data birds: 3 files are left out")) == "[note] data birds: 3 files are left out"
    assert line(Event("epoch", "s", "round 0", {})) is None


def test_plain_lines_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with shown(small_cifar()):
        emit("finished", "runs/x/irp/net-seed0/round-000", "round 0", accuracy=0.25, seconds=1.0)
    emit("finished", "runs/x/irp/net-seed0/round-001", "round 1", accuracy=0.25, seconds=1.0)
    printed = capsys.readouterr().out
    assert printed.startswith("[done] round 0: accuracy 0.25 (1.0 s)  [1/10 rounds, 0/17 arms, about")
    assert "round 1" not in printed
