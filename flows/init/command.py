"""`autosparse init` from its options to a file: look at the data, try the networks, choose a plan, write, read back."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from autosparse.flows.init.asked import asked
from autosparse.flows.init.draft import batch_size_of, draft, learning_rate_of, with_augmentation
from autosparse.flows.init.plans import LADDER, Plan, plan_of, spoken
from autosparse.flows.init.written import written
from autosparse.flows.run_command import validated
from autosparse.flows.spec_file import absolute_paths, spec_of
from autosparse.models.errors import not_allowed
from autosparse.models.specs.fields import override
from autosparse.models.specs.run_specs import NetworkSpec
from autosparse.models.training.probe import step_seconds
from autosparse.storage.cpus import machine_slots
from autosparse.tasks import settings as settings_module
from autosparse.tasks.worker.problem import OwnProblem, Problem, initial_network, open_problem

ENDINGS = (".yaml", ".yml")
PROBED = 2  # batches that the probe takes in turn
console = Console(soft_wrap=True, highlight=False, markup=False)


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What jobs find here: `slots` of them run at once."""

    gpus: int
    slots: int

    @property
    def words(self) -> str:
        """`2 CPUs`, `1 GPU`."""
        return f"{self.slots} {'GPU' if self.gpus else 'CPU'}{'s' if self.slots > 1 else ''}"


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
    gpus = torch.cuda.device_count()
    machine = Machine(gpus=gpus, slots=gpus or machine_slots())

    first = override(draft(LADDER[0], given.networks, given.data, batch_size=1, lr=0.1, images=1, weights=1), changes)
    problem = open_problem(absolute_paths(first, folder).data, settings.cache)
    count, tests = problem.sizes["train"], problem.sizes["test"]
    console.print(f"{first.data.title}: {count:,} training and {tests:,} test {_described(problem)}")
    batch_size = batch_size_of(count, problem.shape)
    tried = [_tried(target.network, problem, batch_size, machine) for target in first.fanout.targets]
    plan = plan_of(given.budget_s, [one.step_s for one in tried], count, machine.slots, batch_size=batch_size, test_images=tests)
    sizes = {"batch_size": batch_size, "images": count, "weights": tried[0].weights}
    data_spec = with_augmentation(given.data, problem.shape)
    spec = override(draft(plan, given.networks, data_spec, lr=min(one.lr for one in tried), gpus=gpus, **sizes), changes)

    text = written(spec, _head(file, plan, given.budget_s, machine))
    line = validated(spec_of(text, file), None, {}, settings.cache)
    _write(file, text, force=force)
    console.print(f"{line}\n{_estimate(plan, given.budget_s, machine)}\nwrote {file}; next: autosparse run --spec {file}")


@dataclass(frozen=True, kw_only=True)
class Tried:
    """A network that was built and trained for some steps."""

    step_s: float
    weights: int
    lr: float


def _tried(network: NetworkSpec, problem: Problem, batch_size: int, machine: Machine) -> Tried:
    module = initial_network(network, problem, seed=0)
    rows = [some for some in torch.arange(problem.sizes["train"])[: PROBED * batch_size].split(batch_size) if len(some) == batch_size]
    batches = list(problem.few(rows, "cpu", channels_last=True))
    step_s = step_seconds(module, batches, device="cuda" if machine.gpus else "cpu", loss=problem.own.loss if problem.own else None)
    weights = sum(param.numel() for param in module.parameters())
    console.print(f"{network.name}: {weights:,} parameters, {step_s:.3g} s a step of {batch_size}")
    return Tried(step_s=step_s, weights=weights, lr=learning_rate_of(module))


def _described(problem: Problem) -> str:
    if isinstance(problem, OwnProblem):
        return f"examples, measured by {problem.own.metric.title}"
    arrays = problem.arrays
    channels, height, width = arrays.image_shape
    return f"images of {width} x {height}, {'grey' if channels == 1 else f'{channels} channels'}, {len(arrays.classes)} classes"


def _estimate(plan: Plan, budget_s: float, machine: Machine) -> str:
    words = f"about {spoken(plan.seconds)} of {spoken(budget_s)} on {machine.words}"
    if not plan.fits:
        return f"estimated: {words}: no run is shorter than this one"
    return f"estimated: {words}" + (f", with the first {plan.train_limit:,} training images" if plan.train_limit else "")


def _head(file: Path, plan: Plan, budget_s: float, machine: Machine) -> str:
    return (
        f"Written by `autosparse init`; {_estimate(plan, budget_s, machine)}.\n"
        f"Run it: autosparse run --spec {file.name}      check it: autosparse validate --spec {file.name}\n"
        "Change what you like, here or for one run, as --set irp.rounds=12; [allowed values] are in brackets."
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
