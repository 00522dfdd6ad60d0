"""`autosparse valley`: the minima of two arms of a finished run, by the same flow as in the pipeline."""

import os
from typing import Any

from autosparse.flows.run_command import QUIET
from autosparse.models.specs.experiment import stored_spec
from autosparse.models.specs.fields import override
from autosparse.storage.open_store import open_store
from autosparse.storage.paths import RunPaths
from autosparse.tasks import settings as settings_module
from autosparse.tasks.cluster.orphans import sweep
from autosparse.tasks.results.comparisons import comparison_of
from autosparse.tasks.results.run_view import view_run
from autosparse.tasks.services.embedded_prefect import prefect_starting


def compare_run(name: str, first: str, second: str, seed: int | None, changes: dict[str, Any]) -> None:
    """Compare and print. Raises SpecError or DataError, in one line and before anything starts: no such run, no such arm, two networks."""
    settings = settings_module.load()
    for key, value in QUIET.items():
        os.environ.setdefault(key, value)
    settings_module.export(settings)  # Prefect, Ray and MLflow read the environment when imported
    store = open_store(settings.storage)
    spec = stored_spec(view_run(store, name)["spec"])
    chosen = override(spec.valley, changes)
    pairs = comparison_of(spec, store, RunPaths(name), first, second, seed=seed, valley=chosen)
    sweep(settings)

    with prefect_starting(settings):
        from autosparse.flows.console import shown
        from autosparse.flows.show_command import console, print_valley
        from autosparse.flows.valley import valley_of_run

    with shown(spec):
        found = valley_of_run(name, pairs)
    print_valley(found)
    for key in (key for report in found for key in report.get("pictures", [])):
        console.print(store.uri(key), highlight=False)
