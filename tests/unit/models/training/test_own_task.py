"""A task of one's own: what stands in for a missing part, sums over batches and ranks, digests, and one line for what will not do."""

import math
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import TensorDataset

from autosparse.models.errors import SpecError
from autosparse.models.networks.calls import tensors_in
from autosparse.models.networks.trial import ForeignError
from autosparse.models.specs.run_specs import DataSpec, JobSpec, TrainSpec
from autosparse.models.training.examples import Pass
from autosparse.models.training.loop import EpochReport, evaluate, fit
from autosparse.models.training.objective import ACCURACY, Metric, told
from autosparse.models.training.own_task import OwnExamples, OwnTask, find_task
from autosparse.models.training.trainer import Rank, Trainer

TRAIN = TrainSpec(epochs=2, batch_size=4, lr=0.1, momentum=0.9, nesterov=False, weight_decay=0.0, schedule="constant")
DATA = DataSpec(name="here:task")
ROOT_MEAN = Metric(name="error", better="lower", unit="m")


def pairs(count: int = 8) -> TensorDataset:
    values = torch.linspace(-1, 1, count).unsqueeze(1)
    return TensorDataset(values, 2 * values.squeeze(1))


def task(**parts: Any) -> SimpleNamespace:
    """Regression to 2 x; a network that says 0 is wrong by 2 |x|."""
    return SimpleNamespace(**{"train": pairs(), "test": pairs(6), "loss": loss} | parts)


def loss(network: nn.Module, batch: Any) -> Tensor:
    inputs, wanted = batch
    return (network(inputs).squeeze(1) - wanted).square().mean()


def measure(network: nn.Module, batch: Any) -> dict[str, Tensor]:
    wrong = network(batch[0]).squeeze(1) - batch[1]
    return {"squares": wrong.square().sum(), "count": torch.tensor(float(len(wrong)))}


def metrics(sums: Any) -> dict[str, float]:
    return {"squares": float(sums["squares"]), "error": math.sqrt(float(sums["squares"] / sums["count"]))}


def silent() -> nn.Module:
    network = nn.Linear(1, 1)
    nn.init.zeros_(network.weight)
    nn.init.zeros_(network.bias)
    return network


def trainer(own: OwnTask, network: nn.Module, **changes: Any) -> Trainer:
    known = {"train": own.examples("train"), "test": own.examples("test"), "objective": own, "spec": TRAIN}
    return Trainer(network=network, forward=network, data=DATA, job=JobSpec(), seed=3, **known | changes)  # type: ignore[arg-type]


def test_the_metric_that_counts_comes_first_and_is_that_of_all_examples() -> None:
    own = OwnTask("here:task", task(measure=measure, metrics=metrics, metric=ROOT_MEAN))
    found = evaluate(trainer(own, silent()), batch_size=4)  # batches of 4 and 2
    squares = sum((2 * value) ** 2 for value in (-1, -0.6, -0.2, 0.2, 0.6, 1))
    assert list(found) == ["error", "squares"]
    assert found == {"error": pytest.approx(math.sqrt(squares / 6)), "squares": pytest.approx(squares)}
    assert told(own.metric, found) == {"metric": {"name": "error", "better": "lower", "unit": "m", "point": 0.0}, "metrics": found}
    assert told(ACCURACY, {"accuracy": 0.5}) == {"accuracy": 0.5}


def test_without_metrics_a_loss_of_ones_own_counts_and_without_a_loss_the_accuracy() -> None:
    own = OwnTask("here:task", task())
    assert (own.metric.name, own.metric.sign) == ("test_loss", -1)
    squares = [(2 * value) ** 2 for value in (-1, -0.6, -0.2, 0.2, 0.6, 1)]
    assert evaluate(trainer(own, silent()), batch_size=4) == {"test_loss": pytest.approx(sum(squares) / 6)}

    labels = TensorDataset(torch.eye(3).repeat(2, 1), torch.tensor([0, 1, 0] * 2))
    own = OwnTask("here:task", SimpleNamespace(train=labels, test=labels))
    assert own.metric == ACCURACY
    network = nn.Linear(3, 3, bias=False)
    with torch.no_grad():
        network.weight.copy_(torch.eye(3))  # says 0, 1, 2
    assert evaluate(trainer(own, network)) == {"accuracy": pytest.approx(2 / 3)}
    batch = next(own.examples("test").batches([torch.arange(3)], DATA, channels_last=False))
    assert own.loss(network, batch) == cross_entropy(torch.eye(3), torch.tensor([0, 1, 0]))


def test_a_network_learns_the_task_and_its_epochs_say_how_well() -> None:
    own, seen = OwnTask("here:task", task(measure=measure, metrics=metrics, metric=ROOT_MEAN)), list[EpochReport]()
    fit(trainer(own, silent(), spec=replace(TRAIN, epochs=40)), on_epoch=seen.append)
    assert seen[-1].metrics["error"] < 0.1 < seen[0].metrics["error"]


class Drawing:
    """A data set that draws from every generator there is."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        return torch.rand(2) + row + float(np.random.default_rng(np.random.randint(1 << 30)).random()), torch.tensor(row)


def order(start: int = 0, *, mine: slice = slice(None), rank: int = 0) -> Pass:
    return Pass(seed=5, epoch=1, start=start, size=2, mine=mine, rank=rank, data=DATA, channels_last=False)


def test_what_a_data_set_draws_is_the_same_wherever_a_pass_is_taken_up() -> None:
    examples = OwnExamples(Drawing(), torch.utils.data.default_collate, "cpu")
    before = torch.random.get_rng_state()
    whole, rest = list(examples.epoch(order())), list(examples.epoch(order(start=2)))
    assert len(whole) == 4 and len(rest) == 2
    for one, other in zip(whole[2:], rest, strict=True):
        assert all(torch.equal(first, second) for first, second in zip(tensors_in(one), tensors_in(other), strict=True))
    assert not torch.equal(whole[0][0] % 1, whole[1][0] % 1) and torch.equal(torch.random.get_rng_state(), before)


def test_ranks_take_their_share_of_each_batch() -> None:
    examples = OwnExamples(pairs(), torch.utils.data.default_collate, "cpu")
    whole = [labels for _, labels in examples.epoch(order())]
    halves = [[labels for _, labels in examples.epoch(order(mine=Rank(index, 2).share(2), rank=index))] for index in range(2)]
    assert all(torch.equal(one, torch.cat(parts)) for one, *parts in zip(whole, *halves, strict=True))


def test_examples_may_be_fetched_together_and_collated_by_ones_own_function() -> None:
    asked: list[list[int]] = []

    class Together:
        def __len__(self) -> int:
            return 4

        def __getitem__(self, row: int) -> int:
            raise AssertionError("one by one")

        def __getitems__(self, rows: list[int]) -> list[int]:
            asked.append(rows)
            return rows

    def collate(rows: list[int]) -> dict[str, Tensor]:
        return {"ids": torch.tensor(rows), "labels": torch.tensor(rows)}

    examples = OwnTask("here:task", SimpleNamespace(train=Together(), test=Together(), collate=collate)).examples("train")
    assert examples.batch(torch.tensor([2, 0]))["ids"].tolist() == [2, 0] and asked == [[2, 0]]


def test_the_digest_is_that_of_the_content_or_what_the_task_says() -> None:
    one, same, other = (OwnTask("here:task", task(train=pairs(count))).digest for count in (8, 8, 9))
    assert one == same != other and len(one) == 32
    named = [OwnTask("here:task", task(digest=text, train=pairs(count))).digest for text, count in (("v1", 8), ("v1", 9), ("v2", 8))]
    assert named[0] == named[1] != named[2]


def test_the_example_is_the_inputs_of_one() -> None:
    assert tuple(OwnTask("here:task", task()).example.shape) == (1, 1)
    words = [{"input_ids": torch.arange(4), "attention_mask": torch.ones(4), "labels": torch.tensor(1)}] * 2
    example = OwnTask("here:task", SimpleNamespace(train=words, test=words)).example
    assert sorted(example) == ["attention_mask", "input_ids"] and example["input_ids"].shape == (1, 4)
    assert OwnTask("here:task", task(example="mine")).example == "mine"


class ByPath:
    """A task that takes a path."""

    def __init__(self, path: str | None = None) -> None:
        self.path, self.train, self.test = path, pairs(), pairs()


class Without:
    """A task that takes none."""

    def __init__(self) -> None:
        self.train = self.test = pairs()


def raising() -> Any:
    raise KeyError("no such table")


READY = task()
HERE = __name__


def test_a_class_a_function_or_an_object_can_be_named() -> None:
    assert find_task(f"{HERE}:ByPath", "/there").parts.path == "/there"
    assert find_task(f"{HERE}:ByPath", None).parts.path is None
    assert find_task(f"{HERE}:Without", None).parts.train and find_task(f"{HERE}:READY", None).parts is READY


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: find_task(f"{HERE}:Without", "/x"), r"^data\.path: '/x' is not allowed; allowed: none for a task that takes no path$"),
        (lambda: find_task(f"{HERE}:nothing", None), r"^data\.name: '.*:nothing' is not allowed; .*no such object"),
        (lambda: find_task("no_such_module_here:task", None), r"^data\.name: .*not importable"),
        (lambda: find_task(f"{HERE}:HERE", None), r"train: NoneType is no data set with a length and \[i\]"),
        (lambda: OwnTask("a:b", task(test=iter([]))), r"test: list_iterator is no data set"),
        (lambda: OwnTask("a:b", task(train=[])), r"\(train: no example\)"),
        (lambda: OwnTask("a:b", task(measure=measure)), r"\(measure without metrics, metric\)"),
        (lambda: OwnTask("a:b", task(measure=measure, metrics=metrics, metric="error")), r"metric: a str is no autosparse\.Metric"),
        (lambda: OwnTask("a:b", task(loss=3)), r"loss: a int is no function"),
        (lambda: Metric(name="loss"), r"^metric\.name: 'loss' is not allowed; allowed: a name of letters"),
        (lambda: Metric(name="mean error"), r"^metric\.name: 'mean error'"),
        (lambda: Metric(name="error", better="smaller"), r"^metric\.better: 'smaller' is not allowed; allowed: higher \| lower"),  # type: ignore[arg-type]
        (lambda: Metric(name="error", point=-1.0), r"^metric\.point: -1\.0"),
        (lambda: OwnTask("a:b", SimpleNamespace(train=[("text", 1)], test=[("t", 1)])).example, r"an example without tensors"),
    ],
)
def test_what_will_not_do_is_one_line(act: Callable[[], Any], message: str) -> None:
    with pytest.raises(SpecError, match=message) as error:
        act()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"measure": lambda network, batch: 3.0}, r"^task\.measure: 'int' is not allowed|^task\.measure: 'float' is not allowed"),
        ({"metrics": lambda sums: {"other": 1.0}}, r"^task\.metrics: \['other'\] is not allowed; allowed: 'error'"),
        ({"metrics": lambda sums: {"error": 1.0, "lr": 2.0}}, r"^task\.metrics: \['lr'\] is not allowed; allowed: names other than"),
        ({"metrics": lambda sums: {"error": math.nan}}, r"^task\.metrics: error: nan is not allowed; allowed: finite$"),
    ],
)
def test_metrics_that_are_none_stop_at_the_first_evaluation(parts: dict[str, Any], message: str) -> None:
    own = OwnTask("here:task", task(**{"measure": measure, "metrics": metrics, "metric": ROOT_MEAN} | parts))
    with pytest.raises(SpecError, match=message):
        evaluate(trainer(own, silent()))


def test_an_error_of_a_persons_own_code_names_its_line() -> None:
    with pytest.raises(ForeignError, match=r"raised KeyError: 'no such table' \(test_own_task\.py:\d+: raise KeyError") as error:
        find_task(f"{HERE}:raising", None)
    assert "Traceback" in error.value.details["traceback"]

    def broken(network: nn.Module, batch: Any) -> dict[str, Tensor]:
        return {"squares": batch["nothing"]}

    own = OwnTask("here:task", task(measure=broken, metrics=metrics, metric=ROOT_MEAN))
    with pytest.raises(ForeignError, match=r"^task\.measure raised TypeError: .*\(test_own_task\.py:\d+: return"):
        evaluate(trainer(own, silent()))
