"""The whole DAG: IRP of each source, feature data set, scorer, fan-out, valleys, summary. Start reading here.

Without sources (`irp.seeds: []`) it begins at the fan-out.
"""

import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Annotated, Any

from prefect import flow
from prefect.runtime import flow_run
from prefect.states import Completed
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import AfterValidator, Field

from autosparse.flows.iterative_pruning import iterative_pruning
from autosparse.flows.recipes import recipe as recipe_spec
from autosparse.flows.rerun import rerun_command
from autosparse.flows.scorer_training import scorer_training
from autosparse.flows.spec_form import Form, changes_form, recipe_form, spec_form
from autosparse.flows.target_fanout import target_fanout
from autosparse.flows.valley import valley
from autosparse.flows.wanted import wanted
from autosparse.models.arms.plan import sources
from autosparse.models.errors import SpecError
from autosparse.tasks import own_code, settings
from autosparse.tasks.checks.preflight import data_specs, run_name
from autosparse.tasks.engine.run import Run, open_run
from autosparse.tasks.engine.step import Report
from autosparse.tasks.extract_features import extract_features
from autosparse.tasks.inspect_data import inspect_data
from autosparse.tasks.planning.artifact import show_plan
from autosparse.tasks.results.comparisons import comparisons
from autosparse.tasks.results.said import said
from autosparse.tasks.summarize_arms import summarize_arms


def known_recipe(name: str | None) -> str | None:
    """The name itself, of a recipe that gives a spec. Raises SpecError."""
    own_code.add(settings.load().code)  # a deployment's flow comes here first
    if name is not None:
        recipe_spec(name)
    return name


# checked where the flow runs; the server, and the page for a new run, have the schemas of flows/spec_form.py
RecipeName = Annotated[str | None, AfterValidator(known_recipe), Form(recipe_form)]
Parts = Annotated[Any, Form(spec_form)]
Changes = Annotated[tuple[str, ...], Form(changes_form)]
RunName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]


def flow_run_title() -> str:
    """The run's name, or its default: from the fingerprint of the spec. What will be refused has a name too."""
    given = flow_run.parameters
    try:
        return given["name"] or run_name(wanted(given["recipe"], given["spec"], given["set"]))
    except SpecError:
        return "refused"


@flow(name="autosparse", flow_run_name=flow_run_title)
def autosparse(recipe: RecipeName = None, spec: Parts = None, set: Changes = (), name: RunName | None = None, force: bool = False) -> Any:
    """The whole pipeline. The same spec, or the same name, takes up where an earlier run stopped: finished steps show as Cached.

    Args:
        recipe: Which spec to begin from: a registered recipe, or a function of your own that returns one. None: the demo, or a whole spec.
        spec: A whole spec, or with a recipe the parts of it that differ: they replace the recipe's, which has all others.
        set: Single fields on top, FIELD=VALUE as behind --set: irp.rounds=12, or fanout.methods=["snip","scorer"].
        name: Of the run, unique in its storage. None: made from the spec, so that the same parameters resume.
        force: Resume with other versions of torch, Ray, Python or the features, or with changed code of your own, than it was begun with.
    """  # Prefect shows these lines beside the fields
    with open_run(wanted(recipe, spec, set), name, force=force, recipe=recipe) as run, run.interruptible():
        for label, data in data_specs(run.spec):
            inspect_data.submit(run, data, label, f"data {data.title}").result()
        show_plan(run)
        dataset, scorer = learned(run) if sources(run.spec) else (None, None)
        slots = run.cluster.slots(run.spec.fanout.job)
        runner: Any = ThreadPoolTaskRunner(max_workers=slots)
        arms = target_fanout.with_options(task_runner=runner)(run, run.name)
        if run.spec.valley.pairs:
            valley.with_options(task_runner=runner)(run, comparisons(run.spec), run.name)
        summary = summarize_arms.submit(run, arms, "summary", rerun_command(run.spec, run.name)).result()
        return Completed(message=said(summary), data=outcome(run, dataset, scorer, summary))


def learned(run: Run) -> tuple[Report, Report]:
    """What the sources teach: the reports of the feature data set, and of the registration of the scorer that was fitted to it."""
    found = sources(run.spec)
    in_parallel(
        run,
        [partial(iterative_pruning, run, network, seed, f"{network.label} seed {seed}") for network, seed in found],
        at_once=run.cluster.slots(run.spec.irp.job),
    )
    dataset = extract_features.submit(run, f"features of {len(found)} sources").result()
    return dataset, scorer_training(run, dataset, run.name)


def in_parallel(run: Run, calls: list[Callable[[], Any]], *, at_once: int) -> list[Any]:
    """Call subflows in threads that keep the parent flow's context, as many at once as there is room for."""
    with ThreadPoolExecutor(max_workers=at_once) as pool, run.interruptible():
        futures = [pool.submit(contextvars.copy_context().run, call) for call in calls]
        return [future.result() for future in futures]


def outcome(run: Run, dataset: Report | None, scorer: Report | None, summary: Report) -> dict[str, Any]:
    """Addresses and counts: the small result of a run; `autosparse show` has the rest. None of what a run without sources has not."""
    return {
        "name": run.name,
        "storage": run.ids["storage"],
        "dataset": dataset and dataset["uri"],
        "scorer_version": scorer and scorer["version"],
        "arms": summary["arms"],
        "mlflow_url": run.ids["mlflow_url"],
    }
