"""How networks are trained, before anything starts: what no single field of a training can know."""

from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import nn

from autosparse.models.errors import SpecError, not_allowed
from autosparse.models.methods.contract import Parts
from autosparse.models.specs.experiment import ExperimentSpec
from autosparse.models.specs.fields import to_plain
from autosparse.models.specs.run_specs import DataSpec, TrainSpec
from autosparse.models.training.optimizers import make_optimizer
from autosparse.models.training.own_task import OwnTask

OF_IMAGES = ("label_smoothing", "mixup")
OF_THE_OPTIMIZER = ("optimizer", "settings")
UNREAD = {  # part of a method -> fields of a training that nothing reads beside it
    "optimizer": OF_THE_OPTIMIZER,
    "gradient": ("accumulate", *OF_IMAGES),
    "wrapper": ("clip",),
}


def check_trainings(spec: ExperimentSpec, tasks: Mapping[DataSpec, OwnTask | None]) -> None:
    """Raise SpecError for batches that cannot be shared out, settings that torch refuses, and fields that a task of one's own does not
    read. `tasks` has each data set's task, None for images."""
    arms = {spec.data_of(target) for target in spec.fanout.targets}
    for name, part, sets in (("irp.train", spec.irp, {spec.data}), ("fanout.train", spec.fanout, arms)):
        _check_training(name, part.train, part.job.workers)
        for data in sets:
            if task := tasks[data]:
                unread = [*OF_IMAGES, *(OF_THE_OPTIMIZER if task.has_optimizer else ())]
                for error in _not_at_default(name, part.train, unread, f"beside {data.name}"):
                    raise error


def unread_beside(train: TrainSpec, parts: Parts, method: str) -> Iterator[SpecError]:
    """An error for each field of an arm's training that has no effect beside the parts of its method."""
    for part, fields in UNREAD.items():
        if getattr(parts, part) is not None:
            yield from _not_at_default("fanout.train", train, fields, f"beside {method}, which brings {part} of its own")


def changed(train: TrainSpec) -> bool:
    """Whether any field is set that a method may not read."""
    return any(True for fields in UNREAD.values() for _ in _not_at_default("", train, fields, ""))


def _not_at_default(place: str, train: TrainSpec, names: Iterable[str], where: str) -> Iterator[SpecError]:
    plain, fields = to_plain(train), TrainSpec.__dataclass_fields__
    for name in names:
        if getattr(train, name) != fields[name].default:
            yield not_allowed(f"{place}.{name}", plain[name], f"{fields[name].default!r} {where}")


def _check_training(field: str, train: TrainSpec, workers: int) -> None:
    if train.batch_size % workers:
        raise not_allowed(f"{field}.batch_size", train.batch_size, f"a multiple of the {workers} workers")
    if train.batch_size // workers % train.accumulate:
        shares = f"a number that divides the {train.batch_size // workers} examples of a worker"
        raise not_allowed(f"{field}.accumulate", train.accumulate, shares)
    if any(mark >= train.epochs for mark in train.milestones):
        raise not_allowed(f"{field}.milestones", list(train.milestones), f"below the {train.epochs} epochs")
    if train.settings:  # the first optimizer of a process imports a compiler, for a second
        try:
            make_optimizer(train, [nn.Parameter(torch.zeros(1))])
        except SpecError as error:
            raise SpecError(f"{field}.{str(error).removeprefix('train.')}") from None
