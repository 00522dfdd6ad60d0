"""Faults inside real processes: Python imports this file at its start wherever PYTHONPATH has this folder.

AUTOSPARSE_INJECT is a JSON list of faults. Each wraps one function of the product as its module is imported:

    {"where": "autosparse.models.training.loop:train_step", "call": 5, "do": "kill", "once": "/tmp/marker"}

`call` counts the calls in one process, from 1. With `once` the fault strikes a single time in all processes: whoever
creates that file first. Without it every process that gets there is struck. `rank` limits it to one rank of a Ray Train job;
`until` is a pattern of files: the process waits for one of them before it is struck.
{"do": "record", "to": FILE} strikes nobody and leaves a line in a file at every call.
"""

import errno
import functools
import glob
import importlib.abc
import importlib.machinery
import json
import os
import signal
import sys
import time
from types import ModuleType
from typing import Any


def kill(fault: dict[str, Any]) -> None:
    """As the kernel ends a process: no clean-up of any kind."""
    os.kill(os.getpid(), signal.SIGKILL)


def hang(fault: dict[str, Any]) -> None:
    """Never come back."""
    time.sleep(10**6)


def fail(fault: dict[str, Any]) -> None:
    """Raise the error that is named in `error`; an OSError with the code of `errno`."""
    if "errno" in fault:
        raise OSError(getattr(errno, fault["errno"]), os.strerror(getattr(errno, fault["errno"])))
    raise _error(fault.get("error", "RuntimeError"))(fault.get("message", "injected"))


def _error(name: str) -> type[Exception]:
    if name == "torch.OutOfMemoryError":
        import torch

        return torch.OutOfMemoryError
    return {"RuntimeError": RuntimeError, "MemoryError": MemoryError}[name]


def set_back(fault: dict[str, Any]) -> None:
    """Move this process's clock an hour back; the monotonic one goes on."""
    clock, clock_ns = time.time, time.time_ns
    time.time, time.time_ns = lambda: clock() - 3600, lambda: clock_ns() - 3600 * 10**9


def record(fault: dict[str, Any]) -> None:
    """Write down that the call was made."""
    with open(fault["to"], "a") as file:
        file.write(f"{os.getpid()} {time.time()}\n")


BEFORE = {"kill": kill, "hang": hang, "fail": fail, "set_back": set_back, "record": record}
AFTER = {"nan": lambda value: value * float("nan")}


def struck(fault: dict[str, Any]) -> bool:
    """Whether this call is the one, and nobody was struck before where once is enough."""
    if fault["do"] == "record":
        return True
    fault["calls"] = fault.get("calls", 0) + 1
    if fault["calls"] != fault.get("call", 1) or not _is_rank(fault):
        return False
    if marker := fault.get("once"):
        try:
            os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return False
    while "until" in fault and not glob.glob(fault["until"], recursive=True):
        time.sleep(0.05)
    return True


def _is_rank(fault: dict[str, Any]) -> bool:
    if "rank" not in fault:
        return True
    import ray.train

    return ray.train.get_context().get_world_rank() == fault["rank"]


def wrapped(function: Any, fault: dict[str, Any]) -> Any:
    """The function with its fault."""

    @functools.wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        if not struck(fault):
            return function(*arguments, **named)
        if fault["do"] in AFTER:
            return AFTER[fault["do"]](function(*arguments, **named))
        BEFORE[fault["do"]](fault)
        return function(*arguments, **named)

    return call


def spoil(module: ModuleType, faults: list[dict[str, Any]]) -> None:
    """Put the faults of one module in place."""
    for fault in faults:
        owner: Any = module
        *path, name = fault["where"].partition(":")[2].split(".")
        for part in path:
            owner = getattr(owner, part)
        setattr(owner, name, wrapped(getattr(owner, name), fault))


class Finder(importlib.abc.MetaPathFinder):
    """Finds the modules that have faults, and spoils them once they are loaded."""

    def __init__(self, faults: dict[str, list[dict[str, Any]]]) -> None:
        self.faults = faults

    def find_spec(self, name: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if name not in self.faults:
            return None
        found = importlib.machinery.PathFinder.find_spec(name, path, target)
        assert found and found.loader
        load, mine = found.loader.exec_module, self.faults[name]

        def exec_module(module: ModuleType) -> None:
            load(module)
            spoil(module, mine)

        found.loader.exec_module = exec_module  # type: ignore[method-assign]
        return found


if wanted := os.environ.get("AUTOSPARSE_INJECT"):
    by_module: dict[str, list[dict[str, Any]]] = {}
    for one in json.loads(wanted):
        by_module.setdefault(one["where"].partition(":")[0], []).append(one)
    sys.meta_path.insert(0, Finder(by_module))
