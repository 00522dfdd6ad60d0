"""`autosparse up`, `down` and `status`: the services and the last runs, printed."""

import os

from rich.console import Console
from rich.table import Table

from autosparse.tasks import settings
from autosparse.tasks.services import up_down as services

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


def print_status() -> None:
    """Services and the last runs in the storage."""
    from autosparse.storage.open_store import open_store
    from autosparse.tasks.results.run_view import last_runs, view_run

    here = settings.load()
    _print_services(here)
    if stale := os.environ.get(settings.STALE_RAY):
        console.print(f"{settings.STALE_RAY}={stale} is ignored; AUTOSPARSE_RAY_ADDRESS is the setting", highlight=False)
    store = open_store(here.storage)
    table = Table("run", "fingerprint", "rounds", "arms", "summary", title=f"last runs in {here.storage}")
    for name in last_runs(store):
        found = view_run(store, name)
        table.add_row(name, found["fingerprint"], str(len(found["rounds"])), str(len(found["arms"])), "yes" if found["summary"] else "no")
    console.print(table)


def _print_services(here: settings.Settings) -> None:
    table = Table("service", "state", "address", "process")
    for one in services.status(here):
        table.add_row(one.name, one.state, one.page or one.address or "-", str(one.pid or "-"))
    console.print(table)
