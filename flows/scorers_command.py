"""`autosparse scorers`: the registered scorers, and which of them an alias points to."""

import json
import os
from typing import Any

from rich.console import Console
from rich.table import Table

from autosparse.flows.sync_command import QUIET
from autosparse.tasks import settings as settings_module

console = Console(soft_wrap=True)
COLUMNS = ("version", "aliases", "data", "label", "sources", "rows", "held-out", "run", "date", "address")


def list_scorers(data: str | None, label: str | None, *, as_json: bool) -> None:
    """Print the versions, the newest first, of that data and label only. Raises ServiceError where MLflow is away."""
    found = [one for one in _registry().listing() if data in (None, one["data"]) and label in (None, one["label"])]
    if as_json:
        console.print(json.dumps(found, indent=2), highlight=False, markup=False)
        return
    if not found:
        console.print("no scorer is registered" + (" of that data and label" if data or label else ""), highlight=False)
        return
    table = Table(*COLUMNS)
    for one in found:
        table.add_row(*(_shown(one[name]) for name in ("version", "aliases", "data", "label", "sources", "rows", "held_out")), one["run"],
                      one["date"], one["address"])  # fmt: skip
    console.print(table)


def promote_scorer(version: str, alias: str, *, force: bool) -> str:
    """One line about who has the alias now. Raises SpecError, with both figures, where the version does not beat who has it."""
    before = _registry().promote(version, alias, force=force)
    return f"{alias} is version {version}" + (f", before it was version {before}" if before not in (None, version) else "")


def _registry() -> Any:
    settings = settings_module.load()
    for key, value in QUIET.items():
        os.environ.setdefault(key, value)
    settings_module.export(settings)
    from autosparse.tasks.tracking.tracker import registry_of  # only now: MLflow reads the environment when imported

    return registry_of(settings)


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, list):
        return ", ".join(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}" if isinstance(value, float) else value
