"""`autosparse table`, `sweep`, `bundle`: several runs as one. Each imports what it needs when it is called."""

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from autosparse.flows.assignments import Flag, Json, RecipeName, SpecChanges, SpecFile, parse_changes

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


def sweep(
    *,
    recipe: RecipeName = None,
    spec: SpecFile = None,
    name: str | None = None,
    set_: SpecChanges = (),
    over: Annotated[tuple[str, ...], Parameter(negative="", help="FIELD=VALUE,VALUE, e.g. fanout.train.lr=0.05,0.1; may be repeated")] = (),
    dry_run: Flag = False,
    force: Flag = False,
    json_: Json = False,
) -> None:
    """One run for every combination of values of some fields, one after another, and one table of all.

    All are checked before the first starts. The same command goes on where it stopped, and tries again what failed.

    Parameters
    ----------
    name
        How the names of the runs begin; by default made from the spec.
    dry_run
        Print the runs and what is left of each; nothing is started.
    force
        As for `autosparse run`.
    json_
        The runs and the table as JSON; what goes on stands on the standard error.
    """
    from autosparse.flows.sweep_command import sweep as run_all

    run_all(recipe, spec, name, parse_changes(set_), over, force=force, dry_run=dry_run, as_json=json_)


def bundle(
    *runs: str,
    out: Path | None = None,
    over: Over = (),
    against: str | None = None,
    check: Path | None = None,
    json_: Json = False,
) -> None:
    """All that is needed to check a table, in one file: specs, reports, digests, versions, the table; no paths of this machine.

    Parameters
    ----------
    runs
        Names of runs, as for `autosparse table`.
    out
        The file to write, a zip file.
    over
        As for `autosparse table`.
    against
        As for `autosparse table`.
    check
        Make the table of this bundle again from its reports and compare all digests: a line for each difference, and exit status 1.
    json_
        With --check, the differences as JSON.
    """
    from autosparse.flows.bundle_command import check_bundle, write_bundle

    if check:
        sys.exit(check_bundle(check, runs, out, as_json=json_))
    sys.stdout.write(f"{write_bundle(runs, out, over, against)}\n")
