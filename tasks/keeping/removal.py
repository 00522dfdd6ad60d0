"""What a run has in each place, and its removal: storage, MLflow, Prefect, and what waits on this machine."""

import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from autosparse.models.errors import DataError
from autosparse.models.specs.experiment import stored_spec
from autosparse.storage.open_store import open_store
from autosparse.storage.paths import RunPaths, reported
from autosparse.storage.store import Entry, Store, is_hidden
from autosparse.tasks.checks.cleared import check_not_cleared
from autosparse.tasks.engine.lock import alone, forget
from autosparse.tasks.keeping import steps
from autosparse.tasks.keeping.place import Place
from autosparse.tasks.keeping.prefect_runs import in_prefect
from autosparse.tasks.settings import Settings
from autosparse.tasks.tracking.removal import in_mlflow
from autosparse.tasks.tracking.tracker import spool_folder

PICTURES = (".png", ".svg")


@dataclass(frozen=True, kw_only=True)
class Removal:
    """A run and what goes of it, place by place."""

    run: str
    places: list[Place]

    @property
    def size(self) -> int:
        """Bytes that are freed."""
        return sum(place.size for place in self.places)


def remove_run(settings: Settings, name: str, *, delete: bool, keep_tables: bool = False, scorers: bool = False) -> Removal:
    """Look at every place of a run, and remove what is there where `delete`; the storage last, so that a second call ends what one began.

    `keep_tables` keeps spec, reports, tables and pictures in storage, and with them MLflow and Prefect. `scorers` removes its versions in
    the model registry as well, unless an alias points to them. Raises DataError where no place knows the run, ConflictError while it is
    at work, and ServiceError where MLflow or Prefect does not answer, before anything is removed.
    """
    store, run = open_store(settings.storage), RunPaths(name)
    with alone(settings, name, "rm once it has ended"):
        places = [_waiting(settings, name)]
        if keep_tables:
            check_not_cleared(store, run)
        else:
            places += [in_mlflow(settings, name, scorers=scorers), in_prefect(settings, name)]
        places.append(_stored(store, run, keep_tables=keep_tables))
        found = Removal(run=name, places=[place for place in places if place.what or place.stays])
        if not any(place.what for place in found.places):
            raise DataError(f"run: {name!r} has nothing to remove in {store.root}, MLflow or Prefect")
        if delete:
            for place in found.places:
                place.remove()
        if not store.exists(run.spec):
            forget(settings, name)
    return found


def remove_step(settings: Settings, name: str, key: str, *, delete: bool) -> Removal:
    """The step that a file of a run belongs to and all that was built on it: the same run makes them again.

    Raises DataError where there is no such run, SpecError where it has nothing of the step, ConflictError while it is at work.
    """
    store, run = open_store(settings.storage), RunPaths(name)
    if not store.exists(run.spec):
        raise DataError(f"run: {name!r} is not in {store.root}")
    check_not_cleared(store, run)
    with alone(settings, name, "rm once it has ended"):
        spec = stored_spec(store.read_json(run.spec)["spec"])
        entries = store.entries(run.root)
        goes = set(steps.gone_with(run, spec, steps.step_of(run, spec, key), [entry.key for entry in entries if not is_hidden(entry.key)]))
        place = _place(store, entries, goes, done=True)
        if delete:
            place.remove()
    return Removal(run=name, places=[place])


def _stored(store: Store, run: RunPaths, *, keep_tables: bool) -> Place:
    entries = store.entries(run.root)
    if not keep_tables:
        unfinished = [one for one in store.leftovers() if one.key.startswith(f"{run.root}/") and one.kind == "upload"]
        place = _place(store, entries, {entry.key for entry in entries})
        uploads = sum(one.size for one in unfinished)

        def remove() -> None:
            store.delete(run.root)
            for one in unfinished:
                store.discard(one)

        return Place(place=place.place, what=place.what, size=place.size + uploads, remove=remove)
    place = _place(store, entries, {entry.key for entry in entries if not _is_table(run, entry.key) and not is_hidden(entry.key)})

    def clear() -> None:
        store.write_json(run.cleared, {"cleared": time.strftime("%Y-%m-%d", time.gmtime()), "bytes": place.size})
        place.remove()

    return Place(place=place.place, what=place.what, size=place.size, remove=clear)


def _is_table(run: RunPaths, key: str) -> bool:
    """Whether `show` and `report` need it, or a person would miss it."""
    inside = (run.summary, run.images)
    drawn = key.endswith(PICTURES) and key.startswith(f"{run.valley}/")
    return key in (run.spec, run.run) or key.startswith(tuple(f"{folder}/" for folder in inside)) or reported(key) is not None or drawn


def _place(store: Store, entries: list[Entry], goes: set[str], *, done: bool = False) -> Place:
    what = f"{len(goes)} files" if goes else ""
    if done:
        what += f" of {sum(reported(key) is not None for key in goes)} steps that are done"

    stays = {entry.key for entry in entries if not is_hidden(entry.key)} - goes  # hidden ones go with their folder, or by `autosparse gc`

    def remove() -> None:
        for prefix in whole(goes, stays):
            store.delete(prefix)

    return Place(place=store.root, what=what, size=sum(entry.size for entry in entries if entry.key in goes), remove=remove)


def whole(goes: Iterable[str], stays: Iterable[str]) -> list[str]:
    """The keys that go, as the fewest folders and keys that hold none that stays; reports first, so that no step looks done half-way."""
    needed = {"/".join(parts[:depth]) for parts in (key.split("/") for key in stays) for depth in range(1, len(parts) + 1)}
    folders = {}
    for key in goes:
        parts = key.split("/")
        first = next(depth for depth in range(1, len(parts) + 1) if "/".join(parts[:depth]) not in needed)
        folders["/".join(parts[:first])] = None
    return sorted(folders, key=lambda prefix: (reported(prefix) is None, prefix))


def _waiting(settings: Settings, name: str) -> Place:
    """What MLflow was still to be told; this run will not tell it."""
    folder = spool_folder(settings, name)
    files = [path for path in folder.rglob("*") if path.is_file()] if folder.is_dir() else []
    size = sum(path.stat().st_size for path in files)
    what = f"{len(files)} files that MLflow did not take yet" if files else ""

    def remove() -> None:
        shutil.rmtree(Path(folder), ignore_errors=True)

    return Place(place=str(folder), what=what, size=size, remove=remove)
