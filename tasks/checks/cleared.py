"""Whether `autosparse rm --keep-tables` has left nothing but the tables of a run."""

from autosparse.models.errors import ConflictError
from autosparse.storage.paths import RunPaths
from autosparse.storage.store import Store


def check_not_cleared(store: Store, run: RunPaths) -> None:
    """Raise ConflictError for a run whose weights, masks and features were removed: there is nothing to go on from."""
    if store.exists(run.cleared):
        when = store.read_json(run.cleared)["cleared"]
        raise ConflictError(
            f"name: {run.name!r} was cleared on {when}, its tables are all that is left; allowed: another --name, or the same after: "
            f"autosparse rm {run.name} --delete"
        )
