"""`autosparse plan`: what a run has done, what is left and what that costs. Writes nothing; starts nothing but a probe."""

import json
import math
import socket
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from autosparse.flows.run_command import begun, checked
from autosparse.models.errors import ServiceError, not_allowed
from autosparse.models.specs.experiment import ExperimentSpec
from autosparse.models.specs.fields import to_plain
from autosparse.storage.open_store import open_store
from autosparse.storage.paths import RunPaths
from autosparse.tasks import own_code
from autosparse.tasks import settings as settings_module
from autosparse.tasks.planning.plan import RunPlan, measured_by, stored_plan
from autosparse.tasks.planning.probe import probed
from autosparse.tasks.planning.schedule import Place, machine
from autosparse.tasks.results.run_view import spec_of_run
from autosparse.tasks.settings import Settings
from autosparse.tasks.worker.pace import paces

ANSWER_S = 10
console = Console(soft_wrap=True, highlight=False, markup=False)


def print_plan(
    run: str | None, recipe: str | None, file: Path | None, name: str | None, changes: dict[str, Any], price: float | None, *, as_json: bool
) -> None:
    """Print the plan of a run in storage, or of a spec. Raises what `run` would raise before anything starts."""
    if price is not None and not (math.isfinite(price) and price >= 0):
        raise not_allowed("--price", price, "a price of an hour, 0 or more")
    settings = settings_module.load()
    spec, paths = _asked(settings, run, recipe, file, name, changes)
    found = made_plan(settings, spec, paths, price)
    if as_json:
        sys.stdout.write(json.dumps(found.to_plain(), indent=2) + "\n")
        return
    console.print(f"{found.name}: {found.line()}")
    table = Table("step", "done (Cached)", "to do", "examples", "one after another", "why")
    for row in found.rows():
        table.add_row(*row)
    console.print(table)
    for line in found.sums():
        console.print(line)


def made_plan(settings: Settings, spec: ExperimentSpec, paths: RunPaths, price: float | None = None) -> RunPlan:
    """The plan by what storage knows, and by a probe where that is not enough: on the Ray of the settings where there is one, else here."""
    store = open_store(settings.storage)
    found = stored_plan(store, paths, spec, machine(), price=price)
    if settings.ray_address and found.to_do:
        return _on_cluster(settings, found)
    if found.seconds is None:
        return measured_by(found, paces(probed(spec), None), "ten steps of each training on this machine")
    return found


def _asked(
    settings: Settings, run: str | None, recipe: str | None, file: Path | None, name: str | None, changes: dict[str, Any]
) -> tuple[ExperimentSpec, RunPaths]:
    if run is None:
        return checked(settings, begun(recipe, file), name, changes, force=False)
    for option, given in (("--recipe", recipe), ("--spec", file), ("--name", name), ("--set", changes)):
        if given:
            raise not_allowed(option, str(given), f"none beside a run ({run})")
    return spec_of_run(open_store(settings.storage), run), RunPaths(run)


def _on_cluster(settings: Settings, found: RunPlan) -> RunPlan:
    settings_module.export(settings)  # Ray reads the environment when imported
    from autosparse.tasks.cluster.connection import connected
    from autosparse.tasks.cluster.jobs import run_remote
    from autosparse.tasks.engine.run import job_config
    from autosparse.tasks.worker.probe_pace import probe_pace

    spec, store, paths = found.spec, open_store(settings.storage), RunPaths(found.name)
    inputs = probed(spec)
    try:
        _check_answers(settings.ray_address or "")
        with connected(settings, own_code.named(settings.code, to_plain(spec))) as cluster:
            found = replace(found, place=Place(cpus=cluster.cpus, gpus=cluster.gpus, name=f"the Ray at {settings.ray_address}"))
            for job in (spec.irp.job, spec.scorer.job, spec.fanout.job):
                found.place.slots(job)
            if found.seconds is not None:
                return found
            config = job_config(spec, store, paths, inputs)
            job = spec.fanout.job
            measured = run_remote(cluster, name="probe", body=probe_pace, config=config, job=job, on_event=lambda event: None)
            return measured_by(found, measured, f"ten steps of each training on {found.place.name}")
    except ServiceError as error:
        sys.stderr.write(f"{error}: measured on this machine instead\n")
    if found.seconds is not None:
        return found
    return measured_by(found, paces(inputs, None), "ten steps of each training on this machine, not on the cluster")


def _check_answers(address: str) -> None:
    """Raise ServiceError where nothing listens: Ray itself tries for minutes. What is no host and port is Ray's to find."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or "://" in address:
        return
    try:
        socket.create_connection((host, int(port)), ANSWER_S).close()
    except OSError as error:
        raise ServiceError(f"ray: {address} could not be reached ({error.strerror or error})") from error
