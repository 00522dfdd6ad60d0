"""`autosparse rm`: runs, or a step of one, listed place by place, and removed when asked for."""

import json
import os
import sys
from typing import Any

from rich.console import Console

from autosparse.flows.sizes import in_words, parse_size
from autosparse.models.errors import ConflictError, not_allowed
from autosparse.storage.open_store import open_store
from autosparse.tasks import settings as settings_module
from autosparse.tasks.settings import Settings

QUIET = {"MLFLOW_LOGGING_LEVEL": "WARNING", "PREFECT_LOGGING_LEVEL": "ERROR"}
console = Console(soft_wrap=True)
Found = dict[str, Any]


def remove(
    names: tuple[str, ...],
    *,
    delete: bool,
    keep_tables: bool,
    scorers: bool,
    step: str | None,
    keep_days: float | None,
    keep_bytes: str | None,
    as_json: bool,
) -> None:
    """Print what goes, or went, and what stays. Raises SpecError, DataError, ConflictError or ServiceError before anything is removed."""
    size = None if keep_bytes is None else parse_size("--keep-bytes", keep_bytes)
    chosen_by_age = keep_days is not None or size is not None
    if bool(names) == chosen_by_age:
        raise not_allowed("RUN", " ".join(names), "names of runs, or --keep-days and --keep-bytes, which choose them")
    if step is not None and (len(names) != 1 or keep_tables or scorers):
        raise not_allowed("--step", step, "with one RUN, and without --keep-tables and --scorers")
    settings = settings_module.load()
    for key, value in QUIET.items():
        os.environ.setdefault(key, value)
    settings_module.export(settings)
    stays: list[str] = []
    if chosen_by_age:
        names, stays = _chosen(settings, keep_days, size, keep_tables)
    told = _told(settings, names, delete, step, keep_tables, scorers, stays if chosen_by_age else None)
    total = sum(run["bytes"] for run in told)
    if as_json:
        sys.stdout.write(json.dumps({"deleted": delete, "bytes": total, "runs": told, "stay": stays}, indent=2) + "\n")
    else:
        _print(told, stays, total, delete)


def _chosen(settings: Settings, days: float | None, size: int | None, keep_tables: bool) -> tuple[tuple[str, ...], list[str]]:
    """Names of the runs that go, oldest first, and a line for each that stays although it is old."""
    from autosparse.tasks.keeping.usage import to_go, usage
    from autosparse.tasks.tracking.removal import runs_of_champions

    runs = [run for run in usage(open_store(settings.storage)) if not (keep_tables and run.cleared)]
    champions = runs_of_champions(settings)
    kept = {run.name for run in to_go(runs, days=days, size=size)} & champions
    names = tuple(run.name for run in to_go(runs, days=days, size=size, kept=champions))
    return names, [f"{name}: an alias of the model registry points to its scorer" for name in sorted(kept)]


def _told(
    settings: Settings,
    names: tuple[str, ...],
    delete: bool,
    step: str | None,
    keep_tables: bool,
    scorers: bool,
    stays: list[str] | None,
) -> list[Found]:
    """What goes of each run; all of them are looked at before the first is touched. With `stays` one that is at work is no error."""
    from autosparse.tasks.keeping.removal import Removal, remove_run, remove_step

    def one(name: str, delete: bool) -> Removal:
        if step is not None:
            return remove_step(settings, name, step, delete=delete)
        return remove_run(settings, name, delete=delete, keep_tables=keep_tables, scorers=scorers)

    found = []
    for name in dict.fromkeys(names):
        try:
            found.append(one(name, False))
        except ConflictError as error:
            if stays is None:
                raise
            stays.append(str(error).partition("; ")[0].removeprefix("run: "))
    if delete:
        found = [one(removal.run, True) for removal in found]
    return [
        {
            "name": removal.run,
            "bytes": removal.size,
            "places": [
                {"place": place.place, "what": place.what, "bytes": place.size, "stays": [*place.stays]} for place in removal.places
            ],
        }
        for removal in found
    ]


def _print(told: list[Found], stays: list[str], total: int, delete: bool) -> None:
    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False)

    for run in told:
        say(f"{run['name']}: {in_words(run['bytes'])}")
        for place in run["places"]:
            if place["what"]:
                say(f"  {in_words(place['bytes']) if place['bytes'] else '':>10}  {place['what']}  {place['place']}")
            for line in place["stays"]:
                say(f"  {'stays':>10}  {line}")
    for line in stays:
        say(f"stays: {line}")
    if not told:
        say("nothing goes")
    elif delete:
        say(f"freed {in_words(total)}")
    else:
        say(f"{in_words(total)} would be freed; --delete removes them")
