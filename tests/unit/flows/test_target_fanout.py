"""What the fan-out starts, in which order and from what; the tasks themselves are left out."""

import contextlib
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from autosparse.flows import target_fanout as fanout
from autosparse.flows.recipes import smoke
from autosparse.models.arms.arm import Arm
from autosparse.storage.paths import RunPaths
from autosparse.tasks.retrain_arm import Origin

LENET, SOURCE = "lenet300-100", "runs/first/irp/lenet300-100-seed0"


class Submitted:
    """Stands for a task: notes what is submitted, and answers with the report of a scoring."""

    def __init__(self, noted: list[Any], name: str) -> None:
        self.noted, self.name = noted, name

    def submit(self, run: Any, *given: Any) -> Any:
        self.noted.append((self.name, *given))
        return SimpleNamespace(result=lambda: {"cuts": cuts("own"), "controls": {"shuffle": cuts("shuffled")}})


def cuts(name: str) -> dict[str, Any]:
    return {density: {"mask": f"{name} {density}", "collapsed": [], "density": float(density)} for density in ("0.5", "0.1")}


def test_arms_start_in_order_and_from_what_they_need(monkeypatch: pytest.MonkeyPatch) -> None:
    noted: list[Any] = []
    monkeypatch.setattr(fanout, "retrain_arm", Submitted(noted, "arm"))
    monkeypatch.setattr(fanout, "score_target", Submitted(noted, "score"))
    monkeypatch.setattr(fanout, "_collect", lambda run, futures: [{"status": "ok"} for _ in futures])
    base = smoke()
    small = replace(base.fanout, methods=("snip", "grda()"), densities=(0.5, 0.1), seeds=(10,), controls=("shuffle",))
    spec = replace(base, fanout=replace(small, ticket=True, dense=True))
    run: Any = SimpleNamespace(
        spec=spec, paths=RunPaths("first"), interruptible=contextlib.nullcontext, back_to_back=contextlib.nullcontext
    )
    assert fanout.target_fanout.fn(run, "first").message == "8 arms"
    told = [(given[0].text, given[1]) if what == "arm" else given for what, *given in noted]
    rewind = {"state": f"{SOURCE}/rewind.safetensors", "start_step": spec.irp.rewind_step}
    assert told == [
        (f"{LENET}/dense#10", Origin()),
        (f"{LENET}/ticket@0.5#0", Origin(mask=f"{SOURCE}/ticket-0.5.safetensors", kept_density=0.5, **rewind)),
        (f"{LENET}/ticket@0.1#0", Origin(mask=f"{SOURCE}/ticket-0.1.safetensors", kept_density=0.1, **rewind)),
        [spec.fanout.targets[0], 10, "snip", f"score {LENET} snip seed 10"],
        (f"{LENET}/grda()#10", Origin(kept_density=None)),
        (f"{LENET}/snip@0.5#10", Origin(mask="own 0.5", kept_density=0.5)),
        (f"{LENET}/snip+shuffle@0.5#10", Origin(mask="shuffled 0.5", kept_density=0.5)),
        (f"{LENET}/snip@0.1#10", Origin(mask="own 0.1", kept_density=0.1)),
        (f"{LENET}/snip+shuffle@0.1#10", Origin(mask="shuffled 0.1", kept_density=0.1)),
    ]
    assert all(given[-1] == given[0].title for what, *given in noted if what == "arm" and isinstance(given[0], Arm))
