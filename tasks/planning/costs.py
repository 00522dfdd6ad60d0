"""The one model of what a step costs: what it does, in units of a training step, and what comes on top whatever it does.

Constants are of runs on two cores of an EPYC (docs/running.md). What runs have measured takes their place (ledger.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from autosparse.models.methods.names import family, is_learned, looks_ahead, trains
from autosparse.models.specs.experiment import ExperimentSpec
from autosparse.models.specs.fields import fingerprint
from autosparse.models.specs.grain import NARROW
from autosparse.models.specs.run_specs import DataSpec, JobSpec, NetworkSpec, TrainSpec
from autosparse.tasks.planning import steps as kinds
from autosparse.tasks.planning.steps import PlannedStep

TORCH_S = 1.7  # of a Python that imports torch: starts elsewhere take as much longer as this does
START, SERIES = "start", "series"  # of a run, and of a job that does many steps
FIXED_S = {  # of a step beside its work: a job's start, its files, what MLflow and Prefect are told
    **{kinds.DATA: 3.0, kinds.ROUND: 8.0, kinds.FEATURES: 3.0, kinds.FIT: 9.0, kinds.REGISTRATION: 3.0},
    **{START: 30.0, SERIES: 7.0},  # services and their end; until the first step of such a job begins
    **{kinds.SCORING: 0.4, kinds.ARM: 1.2, kinds.VALLEY: 4.0, kinds.SUMMARY: 4.0},
}
STARTED = 2  # CPUs that the start of a job keeps busy: on fewer for each, starts wait for one another
EVALUATION = 1 / 3  # a test example costs as much of a training example: its pass forward
ROW_WRITTEN_S = 2e-6  # a row of the feature data set
ROW_S = 2e-6  # of a row in an epoch of the scorer's fit, where nobody has timed one
PASS_S = 0.005  # of a pass of one example, beside its share of a step, where nobody has timed one
MORE_EPOCHS = 2  # of a scorer's fit: the look that normalises, and the table beside it
GATES = 4  # passes of one example that a mask's facts take
FLOW = 100 * 3  # passes of one example in a schedule of 100 iterations over paths
# method -> (passes over the scoring batches, passes of one example)
SCORINGS = {
    **dict.fromkeys(("random", "erk", "uniform", "uniform_plus", "magnitude", "magnitude_iterative"), (0.0, 0.0)),
    **{"snip": (1.0, 0.0), "snip_iterative": (30.0, 0.0), "force": (30.0, 0.0), "grasp": (4.0, 0.0), "ntk_sap": (45.0, 0.0)},
    **{"synflow": (0.0, FLOW), "smallest_paths": (0.0, FLOW), "phew": (0.0, FLOW / 10)},
    **{"growth": (0.0, 0.0), "growth_paths": (0.0, 2 * FLOW), "scorer": (1.0, FLOW), "scorer_growth": (1.0, 2 * FLOW)},
}
UNKNOWN = 4.0, FLOW  # of somebody's own
# of methods that train otherwise, a step as a multiple of a plain one: guesses, single arms on a busy machine but for fwdgrad
FACTORS = {"fwdgrad": 2.4, "constrained_l0": 1.4, "dep_l0": 1.2, "gdp": 1.2, "ga_threshold": 1.3, "ga_topk": 1.2, "str": 1.2, "sdp": 1.2}
NARROWEST = 0.15  # of a step, however narrow the network


@dataclass(frozen=True)
class Examples:
    """How many there are of a data set."""

    train: int
    test: int


@dataclass(frozen=True)
class Pace:
    """Trainings whose steps take equally long: same network, data, batches and job."""

    network: str
    data: str
    batch_size: int
    job: tuple[int, int, float]

    @classmethod
    def of(cls, network: NetworkSpec, data: DataSpec, train: TrainSpec, job: JobSpec) -> "Pace":
        """That of a training."""
        whole = replace(data, train_limit=None, test_limit=None)
        return cls(
            network.label, f"{data.title}-{fingerprint(whole)}", train.batch_size, (job.workers, job.cpus_per_worker, job.gpus_per_worker)
        )


@dataclass(kw_only=True)
class Rates:
    """What has been measured, in seconds: of a training step, of a pass of one example, of a row in an epoch of the scorer's fit.

    `scorings` and `methods` (a step of a method that trains otherwise, in plain ones) are by network and method, `fixed` by kind;
    `rows` are prunable weights, by network. `slowness` is that of starts in comparison to the constants here.
    """

    steps: dict[Pace, float] = field(default_factory=dict)
    passes: dict[str, float] = field(default_factory=dict)
    row: float | None = None
    rows: dict[str, int] = field(default_factory=dict)
    slowness: float | None = None
    scorings: dict[tuple[str, str], float] = field(default_factory=dict)
    methods: dict[tuple[str, str], float] = field(default_factory=dict)
    fixed: dict[str, float] = field(default_factory=dict)
    examples: dict[DataSpec, Examples] = field(default_factory=dict)


@dataclass(frozen=True)
class Cost:
    """Of a step: examples trained on, seconds of work and beside it; None = not known. `guess` says what is guessed."""

    examples: int | None = 0
    work: float | None = 0.0
    beside: float = 0.0
    guess: str = ""

    @property
    def seconds(self) -> float | None:
        """All of it."""
        return None if self.work is None else self.work + self.beside


def steps_in(train: TrainSpec, examples: Examples, start: int = 0) -> int:
    """Training steps from step `start` on; the last short batch of an epoch is dropped."""
    return max(0, train.epochs * (examples.train // train.batch_size) - start)


def units_in(train: TrainSpec, examples: Examples, start: int = 0) -> float:
    """A training in steps, its looks at the test examples among them."""
    looks = sum(map(train.evaluates, range(train.epochs)))
    return steps_in(train, examples, start) + looks * evaluation(train, examples)


def evaluation(train: TrainSpec, examples: Examples) -> float:
    """One look at the test examples in training steps."""
    return examples.test / train.batch_size * EVALUATION


def cost_of(step: PlannedStep, spec: ExperimentSpec, rates: Rates) -> Cost:
    """What a step of the run costs; without contention, which is `wall` 's."""
    beside = beside_of(step.kind, rates)
    if step.kind in (kinds.ROUND, kinds.ARM):
        return _training(step, spec, rates, beside)
    work, guess = 0.0, ""
    if step.kind == kinds.SCORING:
        work, guess = _scoring(step, spec, rates)
    elif step.kind == kinds.FEATURES:
        one = [_batches(spec, rates, spec.data, network) for network in spec.irp.networks]
        rows = sum(rates.rows.get(network.label, 0) for network in spec.irp.networks)
        work = None if None in one else len(spec.irp.seeds) * (sum(filter(None, one)) + rows * ROW_WRITTEN_S)
    elif step.kind == kinds.FIT:
        work = fitted_rows(spec, rates.rows) * (spec.scorer.epochs + MORE_EPOCHS) * (ROW_S if rates.row is None else rates.row)
    elif step.kind == kinds.VALLEY:
        work, guess = _valley(step, spec, rates), f"{kinds.VALLEY}: all probes at the cost of the usual ones"
    return Cost(0, work, beside, guess)


def beside_of(kind: str, rates: Rates) -> float:
    """What a step of a kind takes beside its work: as measured, else as usual, by how slow starts are here."""
    return rates.fixed.get(kind, FIXED_S[kind] * (rates.slowness or 1.0))


def fitted_rows(spec: ExperimentSpec, rows: Mapping[str, int]) -> float:
    """Weights in an epoch of the scorer's fit: those of sources and layers that are not held out."""
    seeds = [seed for seed in spec.irp.seeds if seed not in spec.scorer.holdout_seeds]
    return sum(rows.get(network.label, 0) for network in spec.irp.networks) * len(seeds) * (1 - spec.scorer.holdout_layers)


def _training(step: PlannedStep, spec: ExperimentSpec, rates: Rates, beside: float) -> Cost:
    assert step.network and step.data and step.train
    examples = rates.examples.get(step.data)
    if examples is None:
        return Cost(None, None, beside)
    trained = steps_in(step.train, examples, step.start) * step.train.batch_size
    pace = rates.steps.get(Pace.of(step.network, step.data, step.train, step.job))
    if pace is None:
        return Cost(trained, None, beside)
    factor, guess = _factor(step, rates)
    units = units_in(step.train, examples, step.start) * factor
    if step.kind == kinds.ARM:
        units += evaluation(step.train, examples)  # the network as it is used is looked at once more
    elif spec.irp.criterion == "snip":
        units += spec.scoring.batches * spec.scoring.batch_size / step.train.batch_size
    return Cost(trained, units * pace, beside, guess)


def _factor(step: PlannedStep, rates: Rates) -> tuple[float, str]:
    method = step.method or ""
    if known := rates.methods.get((step.network.label if step.network else "", method)):
        return known, ""
    if family(method) == NARROW and step.density:
        return max(NARROWEST, step.density), f"{NARROW}: a step by its share"
    if step.kind == kinds.ARM and trains(method):
        name = family(method)
        return FACTORS.get(name, 1.0), f"{name}: {FACTORS.get(name, 1.0):g} times a plain step"
    return 1.0, ""


def _scoring(step: PlannedStep, spec: ExperimentSpec, rates: Rates) -> tuple[float | None, str]:
    assert step.network and step.data and step.train and step.method
    name, label = family(step.method), step.network.label
    if (known := rates.scorings.get((label, step.method))) is not None:
        return known, ""
    over, single = SCORINGS.get(name, UNKNOWN)
    if is_learned(name) and spec.scorer.allocation != "paths":
        single = 0.0
    pace = rates.steps.get(Pace.of(step.network, step.data, step.train, step.job))
    if pace is None:
        return None, ""
    one = rates.passes.get(label, pace / step.train.batch_size + PASS_S)
    batches = spec.scoring.batches * spec.scoring.batch_size / step.train.batch_size * pace
    masks = len(spec.fanout.densities) * (1 + len(spec.fanout.controls))
    ahead = spec.scoring.lookahead_steps * pace if looks_ahead(step.method) else 0.0
    guess = f"{name}: scored in as many passes as none of ours needs" if name not in SCORINGS else ""
    return over * batches + (single + GATES * masks) * one + ahead, guess


def _batches(spec: ExperimentSpec, rates: Rates, data: DataSpec, network: NetworkSpec) -> float | None:
    """Seconds of a pass there and back over the scoring batches."""
    for pace, seconds in rates.steps.items():
        if pace.network == network.label and pace.data == Pace.of(network, data, spec.irp.train, spec.irp.job).data:
            return seconds * spec.scoring.batches * spec.scoring.batch_size / pace.batch_size
    return None


def _valley(step: PlannedStep, spec: ExperimentSpec, rates: Rates) -> float | None:
    assert step.network and step.data and step.train
    pace = rates.steps.get(Pace.of(step.network, step.data, step.train, step.job))
    if pace is None:
        return None
    chosen = spec.valley
    example = pace / step.train.batch_size
    forward = (2 * chosen.points + chosen.size**2) * chosen.images * EVALUATION
    there_and_back = chosen.steps * chosen.batch_size + 2 * chosen.curvature_images * (2 * chosen.iterations + 1)
    return example * (forward + there_and_back)
