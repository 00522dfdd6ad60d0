"""`autosparse gc`, `sync`: what is kept of runs, and what is not. Each imports what it needs when it is called."""

from typing import Annotated

from cyclopts import Parameter


def gc(*, older_than: float = 24, delete: Annotated[bool, Parameter(negative="")] = False) -> None:
    """List what killed runs left in the storage: unfinished writes and uploads, checkpoints of steps that are done.

    Parameters
    ----------
    older_than
        Hours; younger ones may belong to a run that is under way.
    delete
        Remove them as well.
    """
    from autosparse.flows.gc_command import collect

    collect(older_than, delete)


def sync(run: str) -> None:
    """Bring MLflow what it missed of a run while it was away: runs, metrics, files, the registered scorer.

    Parameters
    ----------
    run
        The name of the run; what MLflow has already is left as it is.
    """
    from autosparse.flows.sync_command import sync_with_mlflow

    print(sync_with_mlflow(run))
