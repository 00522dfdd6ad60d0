"""`autosparse init` from its options to a file: look at the data, try the networks, choose a plan, write, read back."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from autosparse.flows.init.asked import asked, with_test
from autosparse.flows.init.draft import batch_size_of, compares, draft, learning_rate_of, with_augmentation
from autosparse.flows.init.plans import LADDER, Plan, plan_of
from autosparse.flows.init.written import written
from autosparse.flows.run_command import validated
from autosparse.flows.spec_file import absolute_paths, spec_of
from autosparse.models.errors import not_allowed
from autosparse.models.specs.experiment import ExperimentSpec
from autosparse.models.specs.fields import override
from autosparse.tasks import settings as settings_module
from autosparse.tasks.planning.costs import Examples, Rates
from autosparse.tasks.planning.plan import rows_of
from autosparse.tasks.planning.probe import probed, rates_of, trainings_of
from autosparse.tasks.planning.schedule import Place, machine
from autosparse.tasks.planning.words import spoken
from autosparse.tasks.worker.pace import paces
from autosparse.tasks.worker.problem import OwnProblem, Problem, initial_network, open_problem

ENDINGS = (".yaml", ".yml")
console = Console(soft_wrap=True, highlight=False, markup=False)


def write_spec(
    file: Path, networks: Sequence[str], data: str | None, budget: str | None, changes: dict[str, Any], *, force: bool = False
) -> None:
    """Write a spec to `file`, and print what it would do and the command that does it.

    Raises SpecError or DataError for whatever `run` would refuse; then nothing is written.
    """
    _check_file(file, force=force)
    settings = settings_module.load()
    settings_module.export(settings)
    folder = file.absolute().parent
    given = asked(networks, data, budget, folder)
    place = machine()
    compare = changes.get("irp.seeds") == []
    first = override(draft(LADDER[0], given.networks, given.data, batch_size=1, lr=0.1, images=1, weights=1, compare=compare), changes)
    compare = compare or compares(first, changes)
    if given.data.path and (tested := with_test(first.data, folder)) != first.data:
        console.print(f"{first.data.title}: no test split; {100 * tested.test_share:g} % of its images are the test (data.test_share)")
        changes = changes | {"data.test_share": tested.test_share}
        first = override(first, changes)
    problem = open_problem(absolute_paths(first, folder).data, settings.cache)
    examples = Examples(problem.sizes["train"], problem.sizes["test"])
    console.print(f"{first.data.title}: {examples.train:,} training and {examples.test:,} test {_described(problem)}")
    sizes = {"batch_size": batch_size_of(examples.train, problem.shape), "images": examples.train, "gpus": int(place.gpus)}
    data_spec = with_augmentation(given.data, problem.shape)

    def sized(plan: Plan, *, lr: float = 0.1, weights: int = 1) -> ExperimentSpec:
        return override(draft(plan, given.networks, data_spec, lr=lr, weights=weights, compare=compare, **sizes), changes)

    tried = absolute_paths(sized(LADDER[0]), folder)
    rates, weights = _tried(tried, settings.cache)
    lr = min(learning_rate_of(initial_network(target.network, problem, seed=0)) for target in tried.fanout.targets)
    whole = partial(sized, lr=lr, weights=weights)
    plan = plan_of(given.budget_s, lambda rung: absolute_paths(whole(rung), folder), rates, place, examples)
    spec = whole(plan)

    text = written(spec, _head(file, plan, given.budget_s, place, compare=compare))
    line = validated(spec_of(text, file), None, {}, settings.cache)
    _write(file, text, force=force)
    console.print(f"{line}\n{_estimate(plan, given.budget_s, place)}\nwrote {file}; next: autosparse run --spec {file}")


def _tried(spec: ExperimentSpec, cache: Path) -> tuple[Rates, int]:
    """What some steps of each training take here, and the number of the source's parameters."""
    measured = paces(probed(spec), cache)
    for (_, network, _, train, _), record in zip(trainings_of(spec), measured["trainings"], strict=True):
        console.print(f"{network.name}: {record['weights']:,} parameters, {record['step_seconds']:.3g} s a step of {train.batch_size}")
    rates = rates_of(spec, measured)
    rates.rows |= rows_of(spec)
    return rates, measured["trainings"][0]["weights"]


def _described(problem: Problem) -> str:
    if isinstance(problem, OwnProblem):
        return f"examples, measured by {problem.own.metric.title}"
    arrays = problem.arrays
    channels, height, width = arrays.image_shape
    return f"images of {width} x {height}, {'grey' if channels == 1 else f'{channels} channels'}, {len(arrays.classes)} classes"


def _estimate(plan: Plan, budget_s: float, place: Place) -> str:
    words = f"about {spoken(plan.seconds)} of {spoken(budget_s)} on {place.words}"
    if not plan.fits:
        return f"estimated: {words}, more than the budget: this is the shortest run there is"
    return f"estimated: {words}" + (f", with the first {plan.train_limit:,} training images" if plan.train_limit else "")


def _head(file: Path, plan: Plan, budget_s: float, place: Place, *, compare: bool) -> str:
    without = (
        "No method here needs a scorer or a ticket, so there is no IRP; `autosparse init` writes one where fanout.methods has scorer,\n"
    )
    return (
        f"Written by `autosparse init`; {_estimate(plan, budget_s, place)}.\n"
        f"Run it: autosparse run --spec {file.name}      check it: autosparse validate --spec {file.name}\n"
        f"Change what you like, here or for one run, as --set {'fanout.train.epochs' if compare else 'irp.rounds'}=12; "
        "[allowed values] are in brackets." + (f"\n{without}or with --set fanout.ticket=true." if compare else "")
    )


def _check_file(file: Path, *, force: bool) -> None:
    if file.suffix.lower() not in ENDINGS:
        raise not_allowed("file", str(file), f"a file that ends in {' or '.join(ENDINGS)}")
    if not file.absolute().parent.is_dir() or file.is_dir():
        raise not_allowed("file", str(file), "a file in a folder that exists")
    if file.exists() and not force:
        raise not_allowed("file", str(file), "a new file, or --force to write over this one")


def _write(file: Path, text: str, *, force: bool) -> None:
    try:
        with file.open("w" if force else "x", encoding="utf-8") as opened:
            opened.write(text)
    except OSError as error:
        raise not_allowed("file", str(file), f"a file that can be written ({error.strerror})") from None
