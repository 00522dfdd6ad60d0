"""The command line. Each command imports what it needs, so that `--help` answers at once."""

import gc
import json
import signal
import sys
from inspect import cleandoc
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Annotated

from cyclopts import App, Parameter

from autosparse import __version__
from autosparse.flows import cli_init, cli_keeping, cli_networks, cli_results, cli_services
from autosparse.flows.assignments import Flag, Json, RecipeName, SpecChanges, SpecFile, parse_changes
from autosparse.flows.recipes import RECIPES
from autosparse.flows.standard_output import outlive_reader
from autosparse.models.errors import AutosparseError
from autosparse.tasks import own_code, settings

DESCRIPTIONS = {name: cleandoc(function.__doc__ or "") for name, function in RECIPES.items()}
RECIPE_HELP = "\n".join(f"- {name}: {text.partition(chr(10))[0]}" for name, text in DESCRIPTIONS.items())
INTERRUPTED = "interrupted: the same command goes on from the last finished step"
TERMINATED = 128 + signal.SIGTERM
RARELY = 100_000, 50, 100  # imports make half a million objects that stay; by default a fifth of their time goes into looking for garbage

app = App(
    suppress_keyboard_interrupt=False,  # ours says how to go on
    name="autosparse",
    version=__version__,
    help="Learned pruning at initialization: IRP rounds, a feature data set, a scorer, pruned and retrained targets.",
)


@app.command(
    help=f"Run the whole pipeline with embedded services, or with those that `autosparse up` started.\n\nRecipes:\n\n{RECIPE_HELP}"
)
def run(
    *,
    recipe: RecipeName = None,
    spec: SpecFile = None,
    name: str | None = None,
    set_: SpecChanges = (),
    force: Flag = False,
    open_: Annotated[bool, Parameter(name="--open", negative="")] = False,
) -> None:
    """Run a recipe, or the spec in a file.

    Parameters
    ----------
    name
        The run's name; by default made from the spec, so that the same command resumes.
    force
        Resume with other versions of torch, Ray, Python or the features, or with changed code of your own, than the run was begun with;
        its record then names both.
    open_
        Open the report page in the browser at the end, where there is a display.
    """
    from autosparse.flows.run_command import run_pipeline

    run_pipeline(recipe, spec, name, parse_changes(set_), force=force, show_page=open_)


@app.command
def validate(
    *,
    recipe: RecipeName = None,
    spec: SpecFile = None,
    name: str | None = None,
    set_: SpecChanges = (),
) -> None:
    """Check a run as `run` would, and print in one line what it would do; nothing is started, nothing is written.

    Parameters
    ----------
    name
        The run's name; by default made from the spec.
    """
    from autosparse.flows.run_command import begun, validated

    print(validated(begun(recipe, spec), name, parse_changes(set_)))


@app.command
def plan(
    run: str | None = None,
    *,
    recipe: RecipeName = None,
    spec: SpecFile = None,
    name: str | None = None,
    set_: SpecChanges = (),
    price: float | None = None,
    json_: Json = False,
) -> None:
    """What a run will cost: steps done and to do, trainings, examples, hours, storage. Nothing is started, nothing is written.

    Hours are known from reports in the storage, else from ten steps of each training here, or on the Ray of the settings.

    Parameters
    ----------
    run
        The name of a run in storage that is to be taken up; none with the options of a new one.
    name
        The run's name; by default made from the spec.
    price
        Of an hour of the machine or cluster, in whatever currency: the whole is shown as well.
    json_
        Everything as JSON: docs/running.md has the keys.
    """
    from autosparse.flows.plan_command import print_plan

    print_plan(run, recipe, spec, name, parse_changes(set_), price, as_json=json_)


@app.command
def recipes(name: str | None = None, *, json_: Json = False) -> None:
    """List the recipes, or print one whole as JSON, which `--spec` and `-p spec=...` take.

    Parameters
    ----------
    name
        A recipe by name, or package.module:function, which returns one.
    json_
        The list as JSON too: description by name.
    """
    if name is None and json_:
        print(json.dumps(DESCRIPTIONS, indent=2))
        return
    if name is None:
        width = max(map(len, DESCRIPTIONS)) + 2
        print("\n".join(f"{key:{width}}{text.partition(chr(10))[0]}" for key, text in DESCRIPTIONS.items()))
        return
    from autosparse.flows.recipes import recipe
    from autosparse.models.specs.experiment import plain_spec

    print(json.dumps(plain_spec(recipe(name)), indent=2))


@app.command
def show(run: str, *, json_: Json = False) -> None:
    """What a run did, from its stored reports; needs no server."""
    from autosparse.flows.show_command import print_run
    from autosparse.storage.open_store import open_store
    from autosparse.tasks import settings
    from autosparse.tasks.results.run_view import view_run

    found = view_run(open_store(settings.load().storage), run)
    if json_:
        print(json.dumps(found, indent=2))
    else:
        print_run(found)


@app.command
def report(run: str, *, out: Path | None = None) -> None:
    """One self-contained HTML page about a run, finished or not, from its stored reports; needs no server.

    Parameters
    ----------
    run
        The name of the run.
    out
        The file to write, by default report-RUN.html in the current directory.
    """
    from autosparse.flows.report_command import write_report

    print(write_report(run, out))


@app.command
def valley(
    run: str,
    *,
    first: str,
    second: str,
    seed: int | None = None,
    set_: Annotated[
        tuple[str, ...], Parameter(name="--set", negative="", help="a field of the spec's valley, e.g. size=15; may be repeated")
    ] = (),
) -> None:
    """What lies between the minima of two arms of a finished run: curve, plane, Hessian, noise; numbers and pictures.

    Parameters
    ----------
    run
        The name of the run.
    first
        [TARGET/]METHOD[+CONTROL][@DENSITY][#SEED], e.g. dense or scorer@0.02; the spectrum's displacement starts here.
    second
        The other arm, of the same target.
    seed
        Of arms that name none; by default the first seed of the fan-out.
    """
    from autosparse.flows.valley_command import compare_run

    compare_run(run, first, second, seed, parse_changes(set_))


for command in (
    cli_init.init,
    *(cli_networks.prune, cli_networks.inspect, cli_networks.compact, cli_networks.export),
    *(cli_services.up, cli_services.down, cli_services.status, cli_services.doctor, cli_services.notify),
    *(cli_results.table, cli_results.sweep, cli_results.bundle),
    *(cli_keeping.gc, cli_keeping.rm, cli_keeping.sync, cli_keeping.scorers),
):
    app.command(command)

app.register_install_completion_command(help="Complete commands and options with the tab key, in bash, zsh, fish or PowerShell.")


def main() -> None:
    """Entry point: our own errors are one line each and exit status 2, Ctrl-C is 130, SIGTERM 143."""
    outlive_reader()
    gc.set_threshold(*RARELY)
    try:
        own_code.add(settings.code_folder())  # no more than that: `recipes` needs no home
        app()
    except AutosparseError as error:
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        if story := error.details.get("traceback"):
            with NamedTemporaryFile("w", prefix="autosparse-", suffix=".txt", delete=False) as file:
                file.write(story)
            print(f"the whole traceback is in {file.name}", file=sys.stderr)
        sys.exit(2)
    except ModuleNotFoundError as error:
        if (error.name or "autosparse").partition(".")[0] == "autosparse":
            raise
        print(f"error: no package {error.name}; the pipeline's are in pip install 'autosparse[pipeline]'", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(INTERRUPTED, file=sys.stderr)
        sys.exit(130)
    except SystemExit as left:
        if left.code == TERMINATED:
            print(INTERRUPTED, file=sys.stderr)
        raise


if __name__ == "__main__":
    main()
