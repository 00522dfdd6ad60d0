"""`autosparse plan` as a person types it: what it prints, what it refuses, and that it leaves nothing behind."""

import json
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from autosparse.flows.recipes import smoke
from autosparse.models.specs.fields import fingerprint, override, to_plain
from autosparse.storage.open_store import open_store
from autosparse.storage.paths import RunPaths, report

Typed = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def begun(clean_settings: Path) -> RunPaths:
    """A run that has seen its data and trained one round."""
    store, run, spec = open_store(str(clean_settings / "storage")), RunPaths("begun"), smoke()
    store.write_json(run.spec, {"spec": to_plain(spec), "fingerprint": fingerprint(spec), "name": run.name})
    store.write_json(report(run.data("data")), {"train": 512, "test": 128, "seconds": 3.0})
    store.write_json(report(run.round("lenet300-100", 0, 0)), {"epochs": [{"seconds": 13.0}], "seconds": 21.0})
    return run


def test_a_spec_is_timed_here_and_nothing_is_written(clean_settings: Path, typed: Typed) -> None:
    done = typed("plan", "--recipe", "smoke", "--price", "2.5", "--json", "--set", "fanout.train.epochs=3")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["name"] == f"run-{found['fingerprint']}" == f"run-{fingerprint(override(smoke(), {'fanout.train.epochs': 3}))}"
    assert (found["done"], found["to_do"], found["trainings"], found["examples"]) == (0, 12, 5, (2 + 3 * 3) * 512)
    assert found["seconds"] > 0 and found["cpu_hours"] > 0 and found["gpu_hours"] == 0
    assert found["price"] == {"per_hour": 2.5, "whole": pytest.approx(2.5 * found["seconds"] / 3600)}
    assert found["known_from"] == ["ten steps of each training on this machine"] and found["guesses"] == []
    assert set(found["bytes"]) == {"round", "features", "scoring", "arm", "to_do", "checkpoints"}
    assert set(found["steps"][0]) == {"step", "kind", "title", "done", "reason", "examples", "seconds"}
    assert not clean_settings.exists()


def test_a_run_that_was_begun_says_what_is_done_and_why(begun: RunPaths, typed: Typed) -> None:
    done = typed("plan", "begun", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {step["step"]: step["reason"] for step in found["steps"] if step["done"]} == {
        begun.data("data"): "report there",
        begun.round("lenet300-100", 0, 0): "report there",
    }
    assert {step["reason"] for step in found["steps"] if not step["done"]} == {"no report"}
    assert (found["done"], found["to_do"], found["trainings"], found["price"]) == (2, 10, 4, None)
    second = next(step for step in found["steps"] if step["step"] == begun.round("lenet300-100", 0, 1))
    assert second["seconds"] == pytest.approx(21.0) and second["examples"] == 512  # as the first one
    assert found["known_from"] == ["trainings of this run (1)"]
    shown = typed("plan", "begun", "--price", "1").stdout
    assert "begun: 4 of 5 trainings to do, 2.05 k examples, about " in shown and "price: " in shown and "no report" in shown


def test_a_ray_that_is_not_there_is_said_and_this_machine_measured(clean_settings: Path, typed: Typed) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"  # nobody listens
        done = typed("plan", "--recipe", "smoke", "--json", AUTOSPARSE_RAY_ADDRESS=address)
    assert done.returncode == 0, done.stderr
    assert done.stderr == f"ray: {address} could not be reached (Connection refused): measured on this machine instead\n"
    assert json.loads(done.stdout)["known_from"] == ["ten steps of each training on this machine, not on the cluster"]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("nobody",), "run: 'nobody' is not in "),
        (("begun", "--recipe", "smoke"), "--recipe: 'smoke' is not allowed; allowed: none beside a run (begun)"),
        (("begun", "--set", "irp.rounds=3"), "--set: "),
        (("begun", "--price", "-1"), "--price: -1.0 is not allowed; allowed: a price of an hour, 0 or more"),
        (("begun", "--price", "nan"), "--price: nan is not allowed"),
        (("--recipe", "smok"), "recipe: 'smok' is not known; did you mean 'smoke'?"),
        (("--recipe", "smoke", "--set", "irp.rounds=0"), "irp.rounds: 0 is not allowed"),
        (("--recipe", "smoke", "--name", "begun", "--set", "irp.rounds=3"), "name: 'begun' holds a run of another spec "),
        (("--recipe", "smoke", "--set", "irp.train.batch_size=1024"), "train.batch_size: 1024 is not allowed; allowed: at most the 512"),
        (("--recipe", "smoke", "--spec", "x.yaml"), "--spec: 'x.yaml' is not allowed; allowed: either --spec or --recipe (smoke)"),
    ],
)
def test_what_is_wrong_is_one_line(arguments: tuple[str, ...], line: str, begun: RunPaths, typed: Typed) -> None:
    done = typed("plan", *arguments)
    assert done.returncode == 2 and not done.stdout
    assert done.stderr.startswith(f"error: {line}") and len(done.stderr.splitlines()) == 1, done.stderr
