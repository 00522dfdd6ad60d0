"""`autosparse init`: imports what it needs when it is called."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from autosparse.flows.assignments import Flag, SpecChanges, parse_changes


def init(
    file: Path = Path("autosparse.yaml"),
    *,
    network: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    data: str | None = None,
    budget: str | None = None,
    set_: SpecChanges = (),
    force: Flag = False,
) -> None:
    """Write a whole spec for your own network and data, sized for the time that you have. What no option says is asked for, in a terminal.

    Parameters
    ----------
    file
        Where to: a file that ends in .yaml or .yml.
    network
        A network by name, torchvision:NAME or package.module:factory. May be repeated: the scorer learns from the first, all are pruned.
    data
        A data set by name, a folder or s3://bucket/prefix with images or Parquet files, or package.module:task.
    budget
        The time that the run may take: 90s, 5m, 2h, 1d; 30m by default.
    force
        Write over a file that is there.
    """
    from autosparse.flows.init.command import write_spec

    write_spec(file, network, data, budget, parse_changes(set_), force=force)
