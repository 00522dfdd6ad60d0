"""Errors of a person's own code: found by a dry run, never retried, with the place in their file."""

import traceback
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from autosparse.flows.recipes import smoke
from autosparse.models.errors import SpecError
from autosparse.models.specs.experiment import ExperimentSpec
from autosparse.models.specs.fields import override
from autosparse.models.specs.run_specs import DataSpec, JobSpec, NetworkSpec
from autosparse.tasks.checks.preflight import check_local_data, check_spec
from autosparse.tasks.worker.inputs import Launch, RunInputs, config_of, launched
from autosparse.tasks.worker.inspect_data import DataInputs
from autosparse.tasks.worker.job import Job, body
from autosparse.tasks.worker.problem import open_problem

HERE = __name__
ZERO = r"^irp\.networks\.0: its forward pass raised ZeroDivisionError: tired \(test_foreign_code\.py:\d+"


class Tired(nn.Module):
    """A network whose training raises in a line of this file."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.layer = nn.Linear(64, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Answers in evaluation alone."""
        if self.training:
            raise ZeroDivisionError("tired")
        return self.layer(images.flatten(1))


class Task:
    """Two numbers, two classes."""

    def __init__(self) -> None:
        self.train = self.test = TensorDataset(torch.randn(8, 2, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 2)
        self.keywords = {"inputs": 2}


class Narrow(Task):
    """A task whose metrics are not what it says."""

    metric = property(lambda self: __import__("autosparse").Metric(name="error"))

    def measure(self, network: nn.Module, batch: Any) -> dict[str, Tensor]:
        """Nothing."""
        return {"nothing": torch.zeros(1)}

    def metrics(self, sums: Any) -> dict[str, float]:
        """Something else."""
        return {"other": 0.0}


def build(inputs: int) -> nn.Module:
    """Two layers."""
    return nn.Sequential(nn.Linear(inputs, 8), nn.ReLU(), nn.Linear(8, 2))


def wide(inputs: int) -> nn.Module:
    """One more input than there is."""
    return nn.Sequential(nn.Linear(inputs + 1, 8), nn.ReLU(), nn.Linear(8, 2))


def spec(network: str = "build", task: str = "Task", **changes: Any) -> ExperimentSpec:
    name = f"{HERE}:{network}"
    own = {"irp.networks.0.name": name, "fanout.targets.0.network.name": name, "data.name": f"{HERE}:{task}"}
    own |= {"data.train_limit": None, "data.test_limit": None}
    batches = {"irp.train.batch_size": 4, "fanout.train.batch_size": 4, "scoring.batch_size": 4}
    return override(smoke(), own | batches | changes)


def test_a_task_of_ones_own_passes_the_checks() -> None:
    check_spec(spec())
    check_local_data(spec(), None)
    assert open_problem(DataSpec(name=f"{HERE}:Task"), None).sizes == {"train": 8, "test": 8}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data.augment": "shift"}, r"^data\.augment: 'shift' is not allowed; allowed: 'none' for a task of your own"),
        ({"data.train_limit": 4}, r"^data\.train_limit: 4 is not allowed; allowed: None for a task of your own"),
        ({"data.path": "/x"}, r"^data\.path: '/x' is not allowed; allowed: none for a task that takes no path"),
        ({"fanout.controls": ["random_labels"]}, r"^fanout\.controls: 'random_labels' is not allowed; .* for a task of your own$"),
        ({"valley.pairs": [["dense", "snip@0.1"]]}, r"^valley\.pairs: .* none for a task of your own"),
        ({"fanout.methods": ["fwdgrad(estimator=fg_w)"]}, r"^fanout\.methods: 'fwdgrad.*not of a task of your own"),
        ({"fanout.targets.0.network.name": f"{HERE}:wide"}, r"^fanout\.targets\.0\.network: its forward pass raised RuntimeError"),
        ({"data.name": f"{HERE}:Nobody"}, r"^data\.name: .*no such object"),
    ],
)
def test_what_a_task_of_ones_own_excludes_is_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message) as error:
        check_spec(spec(**changes))
    assert "\n" not in str(error.value)


def test_a_dry_run_on_real_examples_names_the_field_and_the_line() -> None:
    tired = override(smoke(), {"irp.networks.0.name": f"{HERE}:Tired", "fanout.targets.0.network.name": f"{HERE}:Tired"})
    check_spec(tired)  # builds and evaluates
    with pytest.raises(
        SpecError, match=r"^irp\.networks\.0: its forward pass raised ZeroDivisionError: tired \(test_foreign_code\.py:\d+"
    ) as error:
        check_local_data(tired, None)
    assert "Traceback" in error.value.details["traceback"]
    with pytest.raises(SpecError, match=r"^task\.metrics: \['other'\] is not allowed; allowed: 'error'$"):
        check_local_data(spec(task="Narrow"), None)


def fails() -> None:
    raise LookupError("by hand")


@body(DataInputs)
def failing(job: Job, inputs: DataInputs) -> dict[str, Any]:
    fails()
    return {}


def config(name: str) -> dict[str, Any]:
    run = RunInputs(storage="/nowhere", name="test", scoring=smoke().scoring)
    told = SimpleNamespace(put=lambda event: None)
    return launched(config_of(run, DataInputs(data=DataSpec(name=name), networks=())), Launch(job="look", resources=JobSpec()), told)


def test_an_error_of_own_code_in_a_job_is_a_value_that_nobody_retries() -> None:
    failure = failing(config(f"{HERE}:Task"))["error"]
    assert failure["type"] == "SpecError" and failure["message"].startswith(
        "code of your own raised LookupError: by hand (test_foreign_code.py:"
    )
    assert "in fails" in failure["details"]["traceback"]


def test_without_own_code_it_may_be_the_machine_and_is_tried_again() -> None:
    with pytest.raises(LookupError) as error:
        failing(config("digits"))
    assert traceback.extract_tb(error.value.__traceback__)[-1].name == "fails"


def test_networks_of_the_product_are_no_code_of_ones_own() -> None:
    assert NetworkSpec(name="lenet300-100").init == "kaiming_in" and NetworkSpec(name=f"{HERE}:build").init == "own"
