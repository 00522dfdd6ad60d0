"""`autosparse table`: what several runs say together. Each imports what it needs when it is called."""

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

Flag = Annotated[bool, Parameter(negative="")]
Json = Annotated[bool, Parameter(name="--json", negative="")]
Over = Annotated[tuple[str, ...], Parameter(negative="")]


def table(
    *runs: str,
    markdown: Flag = False,
    latex: Flag = False,
    csv: Flag = False,
    json_: Json = False,
    against: str | None = None,
    over: Over = (),
    costs: Flag = False,
    plot: Path | None = None,
    out: Path | None = None,
) -> None:
    """A paper's table from finished runs: mean, deviation and n over seeds, paired tests, the best in bold; needs no server.

    Runs of other seeds, methods or densities add up; runs of another protocol are refused. docs/tables.md says how methods are compared.

    Parameters
    ----------
    runs
        Names of runs.
    markdown
        Markdown, with every test behind the bold print; the default.
    latex
        LaTeX for the package booktabs.
    csv
        A row per method and density, in full precision.
    json_
        The rows of --csv, the runs and what has to be said of them, as JSON.
    against
        Compare every method with this one, e.g. snip or dense, instead of the best of each column.
    over
        A field of the spec in which the runs may differ, e.g. fanout.train.lr: it becomes a column. May be repeated.
    costs
        With --markdown, what the arms cost as well: densities, multiply-adds, seconds, memory.
    plot
        Also write a plot of accuracy over density: a file that ends in .png or .svg.
    out
        Write the table to this file; without another option its ending says the form (.md, .tex, .csv, .json).
    """
    from autosparse.flows.table_command import form_of, made_table

    form = form_of(markdown=markdown, latex=latex, csv=csv, json_=json_, out=out)
    sys.stdout.write(made_table(runs, over=over, against=against, form=form, costs=costs, out=out, plot=plot))
