"""`autosparse up`, `down` and `status`: the services and the last runs, printed."""

import json
import os
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from autosparse.flows.sizes import in_words
from autosparse.tasks import settings
from autosparse.tasks.services import up_down as services

if TYPE_CHECKING:
    from autosparse.storage.store import Store
    from autosparse.tasks.keeping.usage import Usage

console = Console(soft_wrap=True)


def start_services(expose: str | None = None) -> None:
    """Start what is not running yet and print the addresses."""
    here = settings.load()
    with console.status("starting services"):
        services.up(here, expose=expose, tell=console.print)
    _print_services(here)
    console.print("run:  prefect deployment run autosparse/irp --watch")
    console.print(f"with: export PREFECT_API_URL={settings.load().prefect_api_url}", highlight=False)


def stop_services() -> None:
    """Stop what `up` started."""
    stopped = services.down(settings.load())
    console.print(f"stopped: {', '.join(stopped)}" if stopped else "nothing was running")


def print_status(*, as_json: bool = False) -> None:
    """Services, the last runs in the storage and what they take up; as JSON every run."""
    from autosparse.storage.open_store import open_store
    from autosparse.tasks.keeping.usage import usage

    here = settings.load()
    store = open_store(here.storage)
    runs = usage(store)
    if as_json:
        found = {"services": [asdict(one) for one in services.status(here)], "storage": store.root, "bytes": sum(run.size for run in runs)}
        sys.stdout.write(json.dumps({**found, "runs": [_described(run) for run in runs]}, indent=2) + "\n")
        return
    _print_services(here)
    if stale := os.environ.get(settings.STALE_RAY):
        console.print(f"{settings.STALE_RAY}={stale} is ignored; AUTOSPARSE_RAY_ADDRESS is the setting", highlight=False)
    _print_runs(store, runs)


def _described(run: "Usage") -> dict[str, Any]:
    written = datetime.fromtimestamp(run.changed, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"name": run.name, "bytes": run.size, "files": run.files, "written": written, "cleared": run.cleared}


def _print_runs(store: "Store", runs: "list[Usage]") -> None:
    from autosparse.tasks.results.run_view import last_runs, view_run

    table = Table("run", "fingerprint", "rounds", "arms", "summary", "size", title=f"last runs in {store.root}")
    sizes = {run.name: in_words(run.size) + (", cleared" if run.cleared else "") for run in runs}
    for name in last_runs(store):
        found = view_run(store, name)
        counts = (str(len(found["rounds"])), str(len(found["arms"])), "yes" if found["summary"] else "no")
        table.add_row(name, found["fingerprint"], *counts, sizes.get(name, "-"))
    console.print(table)
    if runs:
        console.print(f"{len(runs)} runs, {in_words(sum(run.size for run in runs))}; autosparse rm frees it", highlight=False)


def _print_services(here: settings.Settings) -> None:
    table = Table("service", "state", "address", "process")
    for one in services.status(here):
        table.add_row(one.name, one.state, one.page or one.address or "-", str(one.pid or "-"))
    console.print(table)
