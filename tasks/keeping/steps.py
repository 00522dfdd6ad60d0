"""Which step of a run a file belongs to, and what was built on it: all of that goes when the step is to be done again."""

from collections.abc import Callable, Iterable

from autosparse.models.errors import not_allowed, unknown_name
from autosparse.models.schedules import density_before
from autosparse.models.specs.experiment import ExperimentSpec
from autosparse.models.specs.run_specs import LEARNED, TICKET
from autosparse.storage import paths
from autosparse.storage.paths import RunPaths

# how many parts of a key are those of a step
DEPTH = {paths.DATA: 2, paths.IRP: 3, paths.FEATURES: 1, paths.SCORER: 1, paths.FANOUT: 4, paths.VALLEY: 3, paths.SUMMARY: 1}


def step_of(run: RunPaths, spec: ExperimentSpec, key: str) -> str:
    """The step, or the folder of checkpoints, or the record, that a file or folder within the run belongs to; `key` is one within the run.

    States and tickets of a source are those of the round that wrote them. Raises SpecError for what belongs to no step.
    """
    parts = key.removesuffix("/").split("/")
    head, inside = parts[0], parts[1:]
    if key == run.within(run.run) or (head == paths.TRAINING and inside):
        return f"{run.root}/{'/'.join(parts[:2])}"
    if head not in DEPTH:
        raise not_allowed("--step", key, f"a file or folder of {', '.join(DEPTH)} or {paths.TRAINING} of the run")
    if head == paths.IRP and len(parts) in (2, 3) and not parts[-1].startswith(paths.ROUND):
        return f"{run.root}/{paths.IRP}/{parts[1]}/{paths.ROUND}{_round_of(spec, parts[-1]):03d}"
    if f"{run.root}/{'/'.join(parts[:2])}" == run.registration:
        return run.registration
    if head == paths.IRP and len(parts) > 2 and not parts[2].removeprefix(paths.ROUND).isdecimal():
        raise not_allowed("--step", key, f"a file or folder of {paths.IRP}, whose rounds have numbers")
    depth = DEPTH[head] + (head == paths.FANOUT and len(parts) > 4 and parts[4].startswith(paths.DENSITY))
    if len(parts) < depth:
        raise not_allowed("--step", key, f"a step, which has {depth} parts in {head}")
    return f"{run.root}/{'/'.join(parts[:depth])}"


def _round_of(spec: ExperimentSpec, file: str) -> int:
    """The round that wrote a file beside the rounds: the first one, but for a ticket, which lies between the densities of two."""
    irp = spec.irp
    if not file.startswith(paths.TICKET):
        return 0
    try:
        density = float(file.removeprefix(paths.TICKET).removesuffix(paths.TENSORS))
    except ValueError:
        raise not_allowed("--step", file, f"{paths.TICKET}DENSITY{paths.TENSORS}") from None
    return max((index for index in range(irp.rounds) if density_before(index, irp.rounds, irp.final_density) > density), default=0)


def gone_with(run: RunPaths, spec: ExperimentSpec, step: str, keys: Iterable[str]) -> list[str]:
    """Of the keys of the run those that go when `step` is to be done again: its files, what was built on it, their checkpoints.

    Raises SpecError where the run has nothing of the step.
    """
    known = list(keys)
    if not any(key == step or key.startswith(f"{step}/") for key in known):  # then the run makes it without being told
        raise unknown_name("--step", run.within(step), [run.within(done) for key in known if (done := paths.reported(key))])
    goes = _goes(run, spec, step)
    found = {key for key in known if goes(key)}
    redone = {step, *(done for key in found if (done := paths.reported(key)))}
    folders = {folder for one in redone for folder in run.checkpoints(one)} | {step}
    found |= {key for key in known if (folder := paths.checkpoint_folder(key)) and folder in folders}
    return sorted(found)


def _goes(run: RunPaths, spec: ExperimentSpec, step: str) -> Callable[[str], bool]:
    """Whether a key, other than one of a checkpoint, goes with the step."""
    head = run.within(step).split("/")[0]
    own = [step]
    later = {
        paths.IRP: [run.features, run.scorer, run.valley, run.summary],
        paths.FEATURES: [run.scorer, run.valley, run.summary],
        paths.SCORER: [run.valley, run.summary],
        paths.FANOUT: [run.valley, run.summary],
        paths.VALLEY: [run.summary],
    }
    if step != run.registration:
        own += later.get(head, [])
    methods = {paths.IRP: {*LEARNED, TICKET}, paths.FEATURES: {*LEARNED}, paths.SCORER: {*LEARNED}}.get(head, set())
    rounds = _rounds(spec, step) if paths.is_round(step) else lambda key: False

    def goes(key: str) -> bool:
        learned = step != run.registration and paths.method_of(key) in methods
        return any(key == prefix or key.startswith(f"{prefix}/") for prefix in own) or learned or rounds(key)

    return goes


def _rounds(spec: ExperimentSpec, step: str) -> Callable[[str], bool]:
    """Whether a key belongs to that round of a source or to one after it."""
    source, _, name = step.rpartition("/")
    index = int(name.removeprefix(paths.ROUND))

    def later(key: str) -> bool:
        if not key.startswith(f"{source}/"):
            return False
        first = key.removeprefix(f"{source}/").split("/")[0]
        if first.startswith(paths.ROUND):
            return int(first.removeprefix(paths.ROUND)) >= index
        if first.startswith(paths.TICKET):
            return _round_of(spec, first) >= index
        return index == 0

    return later
