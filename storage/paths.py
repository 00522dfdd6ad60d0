"""Where everything of a run lives: the only place where a key is spelled or taken apart, and the one validator of names."""

import hashlib
import re
from dataclasses import dataclass

from autosparse.models.errors import not_allowed

NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
LONGEST = 63  # characters of a run's name
LONGEST_LABEL = 120  # of a network, which may be named package.module:factory
PLAIN = re.compile(r"[a-z0-9_]+=(-?[0-9.]+(e-?[0-9]+)?|[a-z_][a-z0-9_]*)")  # a setting that can be read back out of a key
RUNS = "runs"
LEASES = "leases"  # who works on a run: beside the runs, so that no listing of one sees it
ATTEMPTS = ("", "-b", "-c")  # suffixes of the folders that one Ray job may have used
IRP, FANOUT, TRAINING = "irp", "fanout", "training"  # folders of a run
DATA, FEATURES, SCORER, VALLEY, SUMMARY = "data", "features", "scorer", "valley", "summary"  # the others
ROUND, DENSITY, TICKET = "round-", "density-", "ticket-"  # how the names of rounds, arms and tickets begin
REPORT = "report.json"
TENSORS = ".safetensors"  # how names of masks, states and weights end


def check_name(field: str, value: str, longest: int = LONGEST) -> str:
    """The name itself, or SpecError: lower-case letters, digits, `_` and `-`, at most `longest`, first a letter or digit."""
    if not isinstance(value, str) or not NAME.fullmatch(value) or len(value) > longest:
        raise not_allowed(field, value, f"[a-z0-9][a-z0-9_-]{{0,{longest - 1}}}")
    return value


def probe(name: str) -> str:
    """A key for `autosparse doctor` to write, read and remove."""
    return f"doctor/{name}"


def method_key(method: str) -> str:
    """A method's name as part of keys and metric names: a bare name as it is, `grda(c=0.02,mu=0.8)` as `grda-c-0.02-mu-0.8`.

    Two names have two keys; what has more than names, numbers and words in it gets a digest, `my_pkg.mine:taylor` as
    `my_pkg.mine-taylor-` with eight digits.
    """
    digest = hashlib.sha256(method.encode()).hexdigest()[:8]
    name, bracket, inside = method.partition("(")
    if ":" in name:
        return f"{re.sub('[^a-z0-9_.]+', '-', method.lower())[:LONGEST].rstrip('-')}-{digest}"
    if not bracket:
        return name
    inside = inside.removesuffix(")")
    if not inside:
        return f"{name}-default"
    lossy = any(PLAIN.fullmatch(part) is None for part in inside.split(","))
    return f"{name}-{re.sub('[^a-z0-9_.-]', '-', inside)}" + (f"-{digest}" if lossy else "")


@dataclass(frozen=True)
class RunPaths:
    """Keys below the storage root for the run called `name`."""

    name: str

    def __post_init__(self) -> None:
        check_name("name", self.name)

    @property
    def root(self) -> str:
        """Everything of the run."""
        return f"{RUNS}/{self.name}"

    @property
    def spec(self) -> str:
        """The spec, written first."""
        return f"{self.root}/spec.json"

    @property
    def run(self) -> str:
        """Ids of the run in Prefect, MLflow and Ray."""
        return f"{self.root}/run.json"

    @property
    def cleared(self) -> str:
        """When `autosparse rm --keep-tables` took everything but the tables; absent in any other run."""
        return f"{self.root}/cleared.json"

    @property
    def images(self) -> str:
        """What the image data sets held."""
        return f"{self.root}/{DATA}"

    def data(self, field: str) -> str:
        """What a data set held when the run first saw it; `field` is that of the spec, `fanout.targets.1.data`."""
        return f"{self.images}/{field.replace('.', '-')}"

    @property
    def irp(self) -> str:
        """The rounds of all source networks and seeds."""
        return f"{self.root}/{IRP}"

    def source(self, network: str, seed: int) -> str:
        """The IRP of one source network and seed."""
        return f"{self.irp}/{network}-seed{seed}"

    def round(self, network: str, seed: int, index: int) -> str:
        """One IRP round."""
        return f"{self.source(network, seed)}/{ROUND}{index:03d}"

    @property
    def features(self) -> str:
        """Feature data sets by digest."""
        return f"{self.root}/{FEATURES}"

    def dataset(self, digest: str) -> str:
        """One feature data set."""
        return f"{self.features}/{digest}"

    @property
    def scorer(self) -> str:
        """The fitted scorer."""
        return f"{self.root}/{SCORER}"

    @property
    def registration(self) -> str:
        """The scorer's way into the model registry."""
        return f"{self.scorer}/registration"

    @property
    def fanout(self) -> str:
        """Scores, masks and arms of all targets."""
        return f"{self.root}/{FANOUT}"

    def scores(self, target: str, seed: int, method: str) -> str:
        """Scores and masks of one target, seed and method, at every density."""
        return f"{self.fanout}/{target}/seed{seed}/{method_key(method)}"

    def arm(self, target: str, seed: int, method: str, density: float | None, control: str | None = None) -> str:
        """One arm of the fan-out: of a method, without a density target where it has none, or of a control of it."""
        return f"{self.scores(target, seed, method)}/{density_part(density)}" + (f"-{control}" if control else "")

    @property
    def valley(self) -> str:
        """Comparisons of the minima of two arms."""
        return f"{self.root}/{VALLEY}"

    def comparison(self, target: str, first: str, second: str, settings: str) -> str:
        """Two arms of a target, by `arm_key` each, under settings with a fingerprint."""
        return f"{self.valley}/{target}/{first}--{second}-{settings}"

    @property
    def summary(self) -> str:
        """The results table and plots."""
        return f"{self.root}/{SUMMARY}"

    def summary_file(self, name: str) -> str:
        """One file of the summary."""
        return f"{self.summary}/{name}"

    @property
    def mask_digests(self) -> str:
        """SHA-256 of each mask, in a results bundle; no run has it in its storage."""
        return f"{self.root}/masks.json"

    @property
    def training(self) -> str:
        """Where Ray Train keeps the checkpoints of jobs that are under way."""
        return f"{self.root}/{TRAINING}"

    @property
    def series(self) -> str:
        """What Ray Train keeps of jobs that take one step after another; nothing in it is needed afterwards."""
        return f"{self.training}/series"

    def within(self, step: str) -> str:
        """The key of a step without that of the run."""
        return step.removeprefix(f"{self.root}/")

    def job(self, step: str) -> str:
        """The name of a step's Ray job, and of its folder in `training`: the key within the run."""
        return self.within(step).replace("/", "-")

    def checkpoints(self, step: str) -> list[str]:
        """Every folder that the Ray job of a step may have used."""
        return [f"{self.training}/{self.job(step)}{attempt}" for attempt in ATTEMPTS]


def leases(run: str) -> str:
    """Who works on a run, and who did."""
    return f"{LEASES}/{run}"


def lease(run: str, term: int) -> str:
    """One turn of somebody at a run; the highest term counts."""
    return f"{leases(run)}/{term:09d}"


def lease_file(run: str, term: int, name: str) -> str:
    """One of a term's three files: `holder` made once by whoever gets the term, `beat` and `end` written by that one alone."""
    return f"{lease(run, term)}/{name}"


def leased(key: str) -> tuple[str, int, str] | None:
    """Run, term and file that a key of a lease stands for; None for other keys."""
    parts = key.split("/")
    return (parts[1], int(parts[2]), parts[3]) if len(parts) == 4 and parts[0] == LEASES and parts[2].isdecimal() else None


def arm_key(method: str, control: str | None, density: float | None, seed: int) -> str:
    """One arm of a target as a part of a key: `snip-shuffle-0.05-seed10`."""
    parts = [method_key(method), *filter(None, [control]), *([] if density is None else [f"{density:g}"])]
    return "-".join([*parts, f"seed{seed}"])


def density_part(density: float | None) -> str:
    """A density as part of keys and metric names, `density-0.05`; `density-own` where the method has no density target."""
    return f"{DENSITY}own" if density is None else f"{DENSITY}{density:g}"


def report(step: str) -> str:
    """The report of a step, written last: a step is done when it is there."""
    return f"{step}/{REPORT}"


def reported(key: str) -> str | None:
    """The step whose report lies at `key`; None where another file does, or a file of Ray's in the folder of a job."""
    step, _, name = key.rpartition("/")
    return step if name == REPORT and not _lies_in(step, TRAINING) else None


def is_round(step: str) -> bool:
    """Whether a step is an IRP round."""
    return _lies_in(step, IRP)


def is_arm(step: str) -> bool:
    """Whether a step is an arm of the fan-out; the scoring before it is none."""
    return _lies_in(step, FANOUT) and len(step.split("/")) == 7


def is_mask(key: str) -> bool:
    """Whether a file of a round, a scoring or an IRP is a mask."""
    name = key.rsplit("/", 1)[-1]
    return name.endswith(TENSORS) and name.startswith(("mask", TICKET))


def method_of(step: str) -> str:
    """The method of an arm or a scoring, as `method_key` spells it; "" for other steps."""
    return step.split("/")[5] if _lies_in(step, FANOUT) and len(step.split("/")) > 5 else ""


def run_of(key: str) -> str | None:
    """The name of the run that a key belongs to."""
    parts = key.split("/")
    return parts[1] if len(parts) > 2 and parts[0] == RUNS and NAME.fullmatch(parts[1]) else None


def within_run(address: str) -> tuple[str, str] | None:
    """The run and the key within it of an address that ends with one, `s3://bucket/runs/NAME/scorer`; None for any other."""
    found = re.search(rf"(?:^|/){RUNS}/({NAME.pattern})/([^\s/]+(?:/[^\s/]+)*)$", address)
    return (found[1], found[2]) if found else None


def checkpoint_folder(key: str) -> str | None:
    """The folder of the Ray job that a key lies in."""
    parts = key.split("/")
    return "/".join(parts[:4]) if len(parts) > 4 and _lies_in(key, TRAINING) else None


def _lies_in(key: str, folder: str) -> bool:
    """Whether a key belongs to that folder of a run."""
    return run_of(key) is not None and key.split("/")[2] == folder


def scores_file(step: str) -> str:
    """The score of every weight."""
    return f"{step}/scores.safetensors"


def failure(step: str) -> str:
    """Why a training ended in one of our own errors, with its details: norms of a divergence, layers of a collapse."""
    return f"{step}/failure.json"


def mask(step: str) -> str:
    """The mask that a step made."""
    return f"{step}/mask.safetensors"


def cut_mask(scores: str, density: float, control: str | None = None) -> str:
    """The mask of a target at one density, beside its scores: of the method, or of a control of it."""
    return f"{scores}/mask-{density:g}" + (f"-{control}" if control else "") + ".safetensors"


def ticket(source: str, density: float) -> str:
    """The mask of an IRP cut to a density that lies between two rounds."""
    return f"{source}/{TICKET}{density:g}{TENSORS}"


def initial_state(source: str) -> str:
    """Weights and buffers before the first step."""
    return f"{source}/initial.safetensors"


def rewind_state(source: str) -> str:
    """Weights and buffers that survivors return to."""
    return f"{source}/rewind.safetensors"


def weights(step: str) -> str:
    """Weights and buffers after training."""
    return f"{step}/weights.safetensors"


def scorer_card(scorer: str) -> str:
    """What the scorer is: architecture, feature version, training data, metrics."""
    return f"{scorer}/scorer.json"


def scorer_weights(scorer: str) -> str:
    """The scorer's tensors."""
    return f"{scorer}/scorer.safetensors"
