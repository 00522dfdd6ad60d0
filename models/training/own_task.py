"""A task of one's own, named `package.module:task`: what is learned from what, by which loss, measured how.

The object, or what the class or function of that name returns, has these parts; only the first two are always needed:

`train`, `test`
    Data sets with a length and `[i]`, as torch's. An example is a tuple (inputs..., label) or a mapping with "labels", of tensors and
    numbers; `__getitems__(rows)` is used where there is one.
`loss(network, batch)`
    The mean loss of a batch, a tensor with one number. Without it: what the network says itself when it is given labels by name, else
    cross entropy.
`measure(network, batch)`, `metrics(sums)`, `metric`
    Sums over the test examples of a batch, name -> tensor; name -> metric out of the sums of all batches; which of the metrics counts
    (`autosparse.Metric`). All three or none. Without them: the accuracy where there is no own loss, else the mean loss.
`collate(examples)`
    A batch out of a list of examples; `torch.utils.data.default_collate` without it.
`keywords`
    What builders of networks are given where they take it: name -> value, such as `num_classes`.
`optimizer(network, settings)`, `schedule(step, steps)`
    An optimizer in the place of the spec's; the learning rate as a share of `settings.lr`. `settings` is a TrainSpec. Where groups of
    the optimizer are made with other rates than `settings.lr`, they keep that ratio to it.
`example`
    The inputs of one example as a batch of one, where they are not all but the last part of an example.
`digest`
    A text that names the content of the data; without it the content of at most 10,000 examples is hashed.

A class or function is called with `path=data.path` where it takes that.
"""

import hashlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import default_collate

from autosparse.models import seeding
from autosparse.models.errors import SpecError, not_allowed
from autosparse.models.imported import import_object, refused
from autosparse.models.networks.calls import Inputs, call, inputs_of, labels_of, logits_of, loss_of, mapped, one_of, tensors_in
from autosparse.models.networks.trial import guarded
from autosparse.models.specs.run_specs import DataSpec, TrainSpec
from autosparse.models.training.examples import Pass
from autosparse.models.training.objective import ACCURACY, SMALLER, Metric, Schedule, Sums, check_names

FIELD = "data.name"
ALLOWED = "package.module:task, an object with train and test (docs/own.md)"
HASHED = 10_000  # examples of a split at most, evenly spaced
MEASURED = ("measure", "metrics", "metric")
TEST_LOSS = Metric(name="test_loss", better=SMALLER)


class OwnExamples:
    """One split of a task of one's own, on a device."""

    at_once: int | None = None

    def __init__(self, data: Any, collate: Callable[[list[Any]], Any], device: torch.device | str) -> None:
        self._data, self._collate, self._device = data, collate, device

    def __len__(self) -> int:
        return len(self._data)

    def epoch(self, order: Pass) -> Iterator[Any]:
        """The batches of a pass; what a data set draws is a function of seed, step and rank, so that a pass can be taken up anywhere."""
        for step, rows in zip(order.steps(len(self)), order.rows(len(self)), strict=True):
            with seeding.scoped(order.seed, "augment", step, order.rank):
                batch = self.batch(rows)
            yield batch

    def batches(self, rows: Sequence[Tensor], data: DataSpec, *, channels_last: bool) -> Iterator[Any]:
        """A batch for each of the rows."""
        for number, some in enumerate(rows):
            with seeding.scoped(0, "examples", number):
                batch = self.batch(some)
            yield batch

    def batch(self, rows: Tensor) -> Any:
        """The examples of these rows as a batch on the device. Raises SpecError for a data set that raises."""
        chosen = rows.tolist()
        many = getattr(self._data, "__getitems__", None)
        found = guarded("task: its examples", lambda: many(chosen) if many else [self._data[row] for row in chosen])
        made = guarded("task.collate", lambda: self._collate(found))
        return mapped(lambda tensor: tensor.to(self._device), made)


class OwnTask:
    """The parts of somebody's object, each with what stands in for it where it is missing; an `Objective` as well.

    Raises SpecError in one line for a part that is missing or will not do.
    """

    def __init__(self, name: str, found: Any) -> None:
        self.name, self.parts = name, found
        for split in ("train", "test"):
            data: Any = getattr(found, split, None)
            if not hasattr(data, "__getitem__") or not hasattr(data, "__len__"):
                raise refused(FIELD, name, ALLOWED, f"{split}: {type(data).__name__} is no data set with a length and [i]")
            if len(data) < 1:
                raise refused(FIELD, name, ALLOWED, f"{split}: no example")
        there = [part for part in MEASURED if getattr(found, part, None) is not None]
        if there and len(there) < len(MEASURED):
            missing = ", ".join(part for part in MEASURED if part not in there)
            raise refused(FIELD, name, ALLOWED, f"{there[0]} without {missing}")
        for part in ("loss", "measure", "metrics", "collate", "optimizer", "schedule"):
            if not callable(getattr(found, part, default_collate)):
                raise refused(FIELD, name, ALLOWED, f"{part}: a {type(getattr(found, part)).__name__} is no function")
        if there and not isinstance(found.metric, Metric):
            raise refused(FIELD, name, ALLOWED, f"metric: a {type(found.metric).__name__} is no autosparse.Metric")

    @property
    def keywords(self) -> Mapping[str, Any]:
        """What builders of networks are given where they take it."""
        return getattr(self.parts, "keywords", {})

    @property
    def own_loss(self) -> Callable[[nn.Module, Any], Tensor] | None:
        """The loss of one's own, None where cross entropy or the network's own is meant."""
        return getattr(self.parts, "loss", None)

    @property
    def metric(self) -> Metric:
        """By which networks are compared."""
        return getattr(self.parts, "metric", None) or (TEST_LOSS if self.own_loss else ACCURACY)

    @cached_property
    def example(self) -> Inputs:
        """The inputs of one example, as a batch of one, on the CPU."""
        own = getattr(self.parts, "example", None)
        if own is not None:
            return own
        inputs = inputs_of(self.examples("train").batch(torch.tensor([0])))
        if not tensors_in(inputs):
            raise refused(FIELD, self.name, ALLOWED, "an example without tensors; (inputs, label), a mapping, or `example` says")
        return one_of(inputs)

    @cached_property
    def digest(self) -> str:
        """32 hex digits that name the content."""
        digest = hashlib.sha256()
        own = getattr(self.parts, "digest", None)
        if own is not None:
            return hashlib.sha256(str(own).encode()).hexdigest()[:32]
        for split in ("train", "test"):
            examples = self.examples(split)
            count = min(len(examples), HASHED)
            digest.update(f"{split} {len(examples)}".encode())
            rows = torch.linspace(0, len(examples) - 1, count).round().long()
            for batch in examples.batches(rows.split(256), DataSpec(name=self.name), channels_last=False):
                for tensor in tensors_in(batch):
                    digest.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
                    digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()[:32]

    def examples(self, split: str, device: torch.device | str = "cpu") -> OwnExamples:
        """`train` or `test`, on a device."""
        return OwnExamples(getattr(self.parts, split), getattr(self.parts, "collate", default_collate), device)

    def loss(self, network: nn.Module, batch: Any) -> Tensor:
        """The mean loss of a batch."""
        return self.own_loss(network, batch) if self.own_loss else loss_of(network, batch, cross_entropy)

    def measure(self, network: nn.Module, batch: Any) -> Sums:
        """Sums over the examples of a batch."""
        if hasattr(self.parts, "measure"):
            found = guarded("task.measure", lambda: self.parts.measure(network, batch))
            if not isinstance(found, Mapping) or not found or not all(isinstance(part, Tensor) for part in found.values()):
                raise not_allowed("task.measure", type(found).__name__, "name -> tensor, sums over the examples of the batch")
            return found
        if self.own_loss:
            loss = self.loss(network, batch).double()
            count = len(tensors_in(batch)[0])
            return {"loss": loss * count, "examples": torch.full_like(loss, count)}
        labels = labels_of(batch)
        right = (logits_of(call(network, inputs_of(batch))).argmax(1) == labels).sum()
        return {"right": right, "labels": torch.full_like(right, labels.numel())}

    def metrics(self, sums: Sums) -> Mapping[str, float]:
        """Metric name -> value."""
        if hasattr(self.parts, "metrics"):
            return guarded("task.metrics", lambda: self.parts.metrics(sums))
        if self.own_loss:
            return {TEST_LOSS.name: float(sums["loss"]) / int(sums["examples"])}
        return {ACCURACY.name: int(sums["right"]) / int(sums["labels"])}

    def check_names(self, metrics: Mapping[str, float]) -> None:
        """Raise SpecError where the metric that counts is missing, or one has a reserved name."""
        check_names(self.metric, metrics)

    @property
    def has_optimizer(self) -> bool:
        """Whether the optimizer is one's own."""
        return getattr(self.parts, "optimizer", None) is not None

    def optimizer(self, network: nn.Module, spec: TrainSpec) -> torch.optim.Optimizer | None:
        """The optimizer of one's own, None for that of the spec."""
        if not self.has_optimizer:
            return None
        found = guarded("task.optimizer", lambda: self.parts.optimizer(network, spec))
        if not isinstance(found, torch.optim.Optimizer):
            raise not_allowed("task.optimizer", type(found).__name__, "a torch.optim.Optimizer")
        known = {id(param) for param in network.parameters()}
        if not any(id(param) in known for group in found.param_groups for param in group["params"]):
            raise not_allowed("task.optimizer", type(found).__name__, "an optimizer of parameters of the network it is given")
        return found

    @property
    def schedule(self) -> Schedule | None:
        """The learning rate of a step as a share of the spec's, None for the schedule of the spec."""
        return getattr(self.parts, "schedule", None)


def find_task(name: str, path: str | None) -> OwnTask:
    """The task that `name` points to, made with `path` where it takes one. Raises SpecError, ForeignError where its own code raises."""
    found = import_object(FIELD, name, ALLOWED)
    if inspect.isclass(found) or (callable(found) and not hasattr(found, "train")):
        found = guarded(f"{FIELD}: {name}", lambda: found(**({"path": path} if _takes(found, "path") else _no(path))))
    return OwnTask(name, found)


def _takes(found: Any, keyword: str) -> bool:
    try:
        return keyword in inspect.signature(found).parameters
    except (TypeError, ValueError):
        return False


def _no(path: str | None) -> dict[str, Any]:
    if path is not None:
        raise SpecError(f"data.path: {path!r} is not allowed; allowed: none for a task that takes no path")
    return {}
