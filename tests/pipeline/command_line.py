"""`autosparse` as a process of its own, in a home of its own."""

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from tests.pipeline.databases import give_databases

AUTOSPARSE = str(Path(sys.executable).parent / "autosparse")
ROOT = Path(__file__).resolve().parents[2]
# convolutions and BatchNorm, so that what is said of resuming holds for them
SMALL = {"name": "resnet8", "width": 4}
METHOD = "grda(c=0.05,mu=0.8)"  # an arm that is no mask at initialization
OUTSIDE = ("examples.own_criterion:lamp", "tests.plugins.outside:DECAY(c=0.5)")  # a criterion and a method that nobody registered
MEASURED = ("seconds", "images_per_second", "peak_memory_bytes", "latency_ms")  # on this machine, at this hour
VALLEY = {
    **{"pairs": [["dense", METHOD]], "images": 64, "batch_size": 32, "steps": 3, "points": 3, "size": 3},
    **{"curvature_images": 32, "k": 2, "iterations": 4},
}
CHANGES = (
    *("--set", f"irp.networks=[{json.dumps(SMALL)}]"),
    *("--set", f"fanout.targets=[{json.dumps({'network': SMALL})}]"),
    *("--set", "fanout.min_per_layer=1"),
    *("--set", "irp.train.epochs=2"),
    *("--set", "scorer.allocation=learned"),
    *("--set", "scoring.lookahead_steps=3"),
    *("--set", f"fanout.methods={json.dumps(['scorer', 'scorer_growth', METHOD, *OUTSIDE])}"),
    *("--set", f"valley={json.dumps(VALLEY)}"),
)
OURS = ("PREFECT_", "MLFLOW_", "RAY_", "AUTOSPARSE_", "AWS_")


def environment(home: Path, **more: str) -> dict[str, str]:
    """The environment without anybody's settings, and with these."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(OURS)}
    path = os.pathsep.join(filter(None, (more.get("PYTHONPATH"), str(ROOT))))  # this checkout, whichever one is installed
    return {**kept, "AUTOSPARSE_HOME": str(home), **more, "PYTHONPATH": path}


def cli(home: Path, *arguments: str, timeout: int = 280, **more: str) -> subprocess.CompletedProcess[str]:
    """A command run to its end."""
    command = [AUTOSPARSE, *arguments]
    if arguments[0] == "run":
        give_databases(home)
    return subprocess.run(command, capture_output=True, text=True, env=environment(home, **more), timeout=timeout, cwd=ROOT)


def copy_of(home: Path, folder: Path) -> Path:
    """The home of a finished run, to be spoiled: its storage alone, and reports with the addresses that it has now."""
    copy = folder / "home"
    shutil.copytree(home / "storage", copy / "storage")
    for report in copy.rglob("*.json"):
        report.write_text(report.read_text().replace(str(home), str(copy)))
    return copy


def without_seconds(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows, and what is nested in them, as they must be equal between two runs."""
    same = [{key: value for key, value in row.items() if not key.endswith(MEASURED)} for row in rows]
    return [{key: without_seconds([value])[0] if isinstance(value, dict) else value for key, value in row.items()} for row in same]


def title_of(process: psutil.Process) -> str:
    """The command line of a process; empty for one that has just ended."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    """Return as soon as the condition holds; fail after so many seconds."""
    waited = threading.Event()
    for _ in range(int(seconds / 0.05)):
        if condition():
            return
        waited.wait(0.05)
    raise AssertionError("the state that was waited for never came")
