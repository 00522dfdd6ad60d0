"""`autosparse run`: a recipe or a file and its changes, checked here before any service starts, then the flow in this process."""

import os
import sys
from pathlib import Path
from typing import Any

from autosparse.flows.browser import open_page
from autosparse.flows.recipes import recipe as recipe_spec
from autosparse.flows.show_command import console, print_addresses, print_advice, print_results, print_valley
from autosparse.flows.spec_file import absolute_paths, spec_in
from autosparse.models.arms.plan import planned
from autosparse.models.errors import not_allowed
from autosparse.models.specs.experiment import ExperimentSpec
from autosparse.models.specs.fields import fingerprint, override
from autosparse.storage.cpus import machine_slots
from autosparse.storage.open_store import open_store
from autosparse.storage.paths import RunPaths
from autosparse.tasks import settings as settings_module
from autosparse.tasks.checks.disk_room import check_room
from autosparse.tasks.checks.own_source import check_same_code
from autosparse.tasks.checks.preflight import check_local_data, check_same_spec, check_same_versions, check_spec, run_name
from autosparse.tasks.cluster.capacity import check_capacity
from autosparse.tasks.cluster.orphans import sweep
from autosparse.tasks.doctor.before_a_run import check_services
from autosparse.tasks.planning.plan import stored_plan
from autosparse.tasks.planning.schedule import machine
from autosparse.tasks.services.embedded_prefect import prefect_starting

# our own lines tell it
QUIET = {"PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL", "MLFLOW_LOGGING_LEVEL": "WARNING", "GRPC_VERBOSITY": "NONE"}


def begun(recipe: str | None, file: Path | None) -> ExperimentSpec:
    """The spec of a recipe, by default the demo, or in a file. Raises SpecError, also for both at once."""
    if file is None:
        return recipe_spec(recipe or "demo")
    if recipe is not None:
        raise not_allowed("--spec", str(file), f"either --spec or --recipe ({recipe})")
    return spec_in(file)


def run_pipeline(recipe: str | None, file: Path | None, name: str | None, changes: dict[str, Any], *, force: bool, show_page: bool) -> None:
    """Run the pipeline, print its results and open its page if asked to. Raises SpecError, DataError or CapacityError before it starts."""
    settings = exported()
    spec, paths = checked(settings, begun(recipe, file), name, changes, force=force)
    warn_of_services(settings)
    if settings.ray_address is None:
        check_local_data(spec, settings.cache)
    say_plan(settings, spec, paths)
    page = run_checked(settings, started(settings), spec, name, recipe, force=force)
    if show_page and page:
        open_page(page)


def exported() -> settings_module.Settings:
    """The settings, put where Prefect, Ray and MLflow read them when they are imported."""
    settings = settings_module.load()
    for key, value in QUIET.items():
        os.environ.setdefault(key, value)
    settings_module.export(settings)
    return settings


def warn_of_services(settings: settings_module.Settings) -> None:
    """Say on the standard error what a run may stumble over. Raises as `check_services` does."""
    for warning in check_services(settings):
        sys.stderr.write(f"warning: {warning}\n")


def started(settings: settings_module.Settings) -> Any:
    """The flow, imported while its server starts: once in a process, however many runs follow."""
    sweep(settings)
    with prefect_starting(settings, console.print):
        from autosparse.flows.autosparse_pipeline import autosparse
    return autosparse


def run_checked(
    settings: settings_module.Settings, pipeline: Any, spec: ExperimentSpec, name: str | None, recipe: str | None, *, force: bool
) -> str | None:
    """One run of the flow that `started` returned, shown as it goes on, and its results; the address of its page."""
    from autosparse.flows.console import shown
    from autosparse.tasks.results.run_view import view_run

    with shown(spec):
        result = pipeline(recipe=recipe, spec=spec, name=name, force=force)
    found = view_run(open_store(settings.storage), result["name"])
    print_results(found)
    print_advice(found)
    print_valley(found["valley"])
    print_addresses(found)
    return found["addresses"]["report"]


def validated(base: ExperimentSpec, name: str | None, changes: dict[str, Any], cache: Path | None = None) -> str:
    """What `run_pipeline` would do, in one line, after the same checks. Raises what it would raise before anything starts.

    Without a `cache` for decoded images nothing is written.
    """
    settings = settings_module.load()
    spec, paths = checked(settings, base, name, changes, force=False)
    if settings.ray_address is None:
        check_local_data(spec, cache)
    irp = spec.irp
    trained = f"{len(irp.networks)} networks x {len(irp.seeds)} seeds x {irp.rounds} rounds = "
    trained += f"{len(irp.networks) * len(irp.seeds) * irp.rounds} trainings, a scorer ({spec.scorer.kind})"
    return (
        f"{paths.name}: spec {fingerprint(spec)}, {trained if irp.seeds else 'no IRP and no scorer'}, {len(planned(spec))} arms "
        f"on {len(spec.fanout.targets)} targets"
    )


def checked(
    settings: settings_module.Settings, base: ExperimentSpec, name: str | None, changes: dict[str, Any], *, force: bool
) -> tuple[ExperimentSpec, RunPaths]:
    """The spec and where it goes, after every check that opens no data. Raises SpecError, ConflictError, DataError or CapacityError."""
    spec = absolute_paths(override(base, changes), Path.cwd())
    paths = RunPaths(name or run_name(spec))
    check_spec(spec)
    store = open_store(settings.storage)
    check_same_spec(store, paths, spec)
    check_same_versions(store, paths, force=force)
    check_same_code(store, paths, spec, force=force)
    check_room(store, paths, spec)
    if settings.ray_address is None:
        _check_fits_here(spec)
    return spec, paths


def say_plan(settings: settings_module.Settings, spec: ExperimentSpec, paths: RunPaths) -> None:
    """The plan in one line, by what storage knows; best effort."""
    try:
        found = stored_plan(open_store(settings.storage), paths, spec, machine(), quick=True)
        sys.stdout.write(f"{paths.name}: {found.line(timed=settings.ray_address is None)}\n")
    except Exception as error:
        sys.stdout.write(f"{paths.name}: no plan ({type(error).__name__}: {error})\n")
    sys.stdout.flush()


def _check_fits_here(spec: ExperimentSpec) -> None:
    import torch

    cpus, gpus = machine_slots(), torch.cuda.device_count()
    for field, job in (("irp", spec.irp.job), ("scorer", spec.scorer.job), ("fanout", spec.fanout.job)):
        try:
            check_capacity(job, cpus, gpus)
        except Exception as error:
            raise type(error)(f"{field}.{error}") from None
