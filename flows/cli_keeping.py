"""`autosparse gc`, `rm`, `sync`, `scorers`: what is kept of runs, and what is not. Each imports what it needs when it is called."""

from autosparse.flows.assignments import Flag, Json


def gc(*, older_than: float = 24, delete: Flag = False, json_: Json = False) -> None:
    """List what killed runs left in the storage: unfinished writes and uploads, checkpoints of steps that are done.

    Parameters
    ----------
    older_than
        Hours; younger ones may belong to a run that is under way.
    delete
        Remove them as well.
    json_
        The list as JSON.
    """
    from autosparse.flows.gc_command import collect

    collect(older_than, delete, as_json=json_)


def rm(
    *runs: str,
    step: str | None = None,
    keep_days: float | None = None,
    keep_bytes: str | None = None,
    keep_tables: Flag = False,
    scorers: Flag = False,
    delete: Flag = False,
    json_: Json = False,
) -> None:
    """List what runs have in storage, MLflow, Prefect and on this machine, with bytes; remove it with --delete.

    Parameters
    ----------
    runs
        Names of runs; or none, and --keep-days or --keep-bytes, which choose whole runs, oldest first.
    step
        Of one run only this step, or the step that this file belongs to, and what was built on it: the same `run` makes them again.
    keep_days
        Runs go that were last written more than so many days ago; those of champion scorers stay.
    keep_bytes
        The oldest runs go until the others take up so much at most, e.g. 50GiB; those of champion scorers stay.
    keep_tables
        Keep spec, reports, tables, plots and report page, and what MLflow and Prefect have: `show` and `report` go on working.
    scorers
        Remove the versions that the runs put into the model registry too, unless an alias points to them.
    delete
        Remove it; without it nothing is touched.
    """
    from autosparse.flows.rm_command import remove

    remove(
        runs,
        delete=delete,
        keep_tables=keep_tables,
        scorers=scorers,
        step=step,
        keep_days=keep_days,
        keep_bytes=keep_bytes,
        as_json=json_,
    )


def sync(run: str) -> None:
    """Bring MLflow what it missed of a run while it was away: runs, metrics, files, the registered scorer.

    Parameters
    ----------
    run
        The name of the run; what MLflow has already is left as it is.
    """
    from autosparse.flows.sync_command import sync_with_mlflow

    print(sync_with_mlflow(run))


def scorers(
    *,
    data: str | None = None,
    label: str | None = None,
    promote: str | None = None,
    alias: str = "champion",
    force: Flag = False,
    json_: Json = False,
) -> None:
    """The registered scorers: what each was learned from, how good it is on held-out weights, how to name it.

    Parameters
    ----------
    data
        Only those that learned on this data.
    label
        Only those of this label, growth or survival.
    promote
        Give this version the alias, unless it is no better than the one that has it.
    alias
        With --promote: champion, or champion-DATA-LABEL.
    force
        With --promote: also to a worse version.
    """
    from autosparse.flows.scorers_command import list_scorers, promote_scorer

    if promote is None:
        list_scorers(data, label, as_json=json_)
    else:
        print(promote_scorer(promote, alias, force=force))
