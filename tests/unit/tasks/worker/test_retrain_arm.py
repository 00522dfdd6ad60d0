"""The body of an arm's job: what it trains, what it stores, what it reports. Only Ray's own report of an epoch is left out."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray.train
import torch
from torch import nn

from autosparse.flows.recipes import smoke
from autosparse.flows.target_fanout import cut_of
from autosparse.models.arms.arm import Arm
from autosparse.models.masks import mask as masks
from autosparse.models.methods import registry
from autosparse.models.methods.contract import Method, Parts, Settings, Setup
from autosparse.models.specs.run_specs import DataSpec, JobSpec, NetworkSpec
from autosparse.storage import paths
from autosparse.storage.checkpoints import load_tensors
from autosparse.storage.mask_files import dump_mask
from autosparse.storage.open_store import open_store
from autosparse.tasks.worker.inputs import Launch, RunInputs, config_of, launched
from autosparse.tasks.worker.retrain_arm import ArmInputs, Level, retrain_arm
from tests.worker_jobs import SCORING

pytestmark = pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")  # images lie in the cache

WEIGHTS = 64 * 300 + 300 * 100 + 100 * 10
Body = Callable[..., dict[str, Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Half(Settings):
    keep: float = 0.5


class Halved:
    """A transform that does nothing until it is baked: then the first rows of the first layer are zero."""

    def __init__(self, keep: float) -> None:
        self.keep = keep

    def sample(self, generator: torch.Generator) -> None: ...

    def bake(self, network: nn.Module) -> None:
        weight = network.get_parameter("1.weight")
        with torch.no_grad():
            weight[: int((1 - self.keep) * len(weight))] = 0


def half_parts(setup: Setup, settings: Half) -> Parts:
    """SGD without momentum, half a layer in the end, and a last layer of ones and zeros for inference."""

    def rewrite(network: nn.Module, generator: torch.Generator) -> nn.Module:
        with torch.no_grad():
            network.get_parameter("5.weight")[1:] = 0
        return network

    facts = {"expected_density": 0.25, "wrong": float("nan"), "steps": float(setup.steps)}
    return Parts(
        transforms=[Halved(settings.keep)],
        optimizer=torch.optim.SGD(setup.network.parameters(), lr=0.1),
        rewrite=rewrite,
        cost=lambda network: {"5.weight": 7.0},
        facts=lambda: facts,
    )


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Body:
    """The body on the digits of the smoke recipe."""
    method = Method(settings=Half, levels=(Half(),), by_density=False, parts=half_parts, card="for tests")
    monkeypatch.setitem(registry.METHODS, "half", method)
    monkeypatch.setattr(ray.train, "report", lambda metrics, checkpoint=None: None)
    monkeypatch.setattr(ray.train, "get_checkpoint", lambda: None)
    told: list[dict[str, Any]] = []

    def body(**changes: Any) -> dict[str, Any]:
        given = {
            "network": NetworkSpec(name="lenet300-100"),
            "data": DataSpec(name="digits", train_limit=256, test_limit=64),
            "train": smoke().fanout.train,
            **{"seed": 3, "control": None, "mask": None, "state": None, "start_step": 0, "method": None, "step": "arm"},
        }
        inputs: Any = ArmInputs(**given | changes)
        config = config_of(RunInputs(storage=str(tmp_path), name="test", scoring=SCORING), inputs)
        told.clear()
        sent = launched(config, Launch(job="arm", resources=JobSpec()), SimpleNamespace(put=told.append))
        return retrain_arm(sent) | {"told": list(told)}

    return body


def test_the_dense_arm_counts_everything(run: Body) -> None:
    found = run()
    assert (found["kept_density"], found["effective_density"], found["density_own"]) == (1.0, 1.0, None)
    assert found["inference_macs"] == WEIGHTS
    assert found["training_macs"] == 3 * WEIGHTS * 256  # two steps of 128 images
    assert found["lr_over_batch"] == pytest.approx(0.1 / 128)
    assert found["images_per_second"] == pytest.approx(64 / found["inference_seconds"])
    assert found["training_seconds"] == sum(record["seconds"] for record in found["epochs"])
    assert found["peak_memory_bytes"] > 2**27  # torch itself
    assert (found["accuracy"], found["replaces"], found["facts"]) == (found["epochs"][-1]["accuracy"], [], {})


def test_a_masked_arm_counts_what_is_left(run: Body, tmp_path: Path) -> None:
    mask = {name: torch.ones(shape, dtype=torch.bool) for name, shape in (("1.weight", (300, 64)), ("3.weight", (100, 300)))}
    mask["5.weight"] = torch.arange(1000).reshape(10, 100) < 500
    open_store(str(tmp_path)).write("mask", dump_mask(mask))
    found = run(mask="mask")
    assert found["kept_density"] == masks.density(mask) == (WEIGHTS - 500) / WEIGHTS
    assert found["inference_macs"] == WEIGHTS - 500
    assert found["training_macs"] == pytest.approx(3 * (WEIGHTS - 500) * 256)


def test_a_method_is_measured_on_the_network_that_would_be_used(run: Body, tmp_path: Path) -> None:
    found = run(method=Level(name="half(keep=0.5)", density=None))
    assert found["kept_density"] == (150 * 64 + 30_000 + 100) / WEIGHTS  # half of the first layer, one row of the last
    assert found["inference_macs"] == pytest.approx(150 * 64 + 30_000 + 7)  # the rewrite counts the last layer for itself
    assert found["training_macs"] == 3 * WEIGHTS * 256
    assert found["expected_density"] == 0.25
    assert found["replaces"] == ["transforms", "optimizer", "rewrite"]
    assert found["facts"] == {"expected_density": 0.25, "steps": 2.0}
    assert found["told"][0]["facts"] == found["facts"]
    stored = load_tensors(open_store(str(tmp_path)).read(paths.weights("arm")))
    assert int(stored["1.weight"].count_nonzero()) == 150 * 64
    assert int(stored["5.weight"].count_nonzero()) == 1000  # before the rewrite
    assert found["accuracy"] != found["epochs"][-1]["accuracy"]  # nine of ten classes have no weight left


def test_without_weights_of_their_own_methods_start_where_dense_starts(run: Body) -> None:
    first, second = run(), run(method=Level(name="half(keep=1.0)", density=None))
    assert first["data_digest"] == second["data_digest"]
    assert first["loss"] != second["loss"]  # momentum is gone
    assert first["weights"] == second["weights"] == WEIGHTS


def test_a_network_without_a_path_has_collapsed(run: Body) -> None:
    assert run()["collapsed"] == []
    assert run(method=Level(name="half(keep=0.5)", density=None))["collapsed"] == []
    dead = run(method=Level(name="half(keep=0.0)", density=None))
    assert (dead["effective_density"], dead["collapsed"]) == (0.0, ["1.weight"])


def test_a_mask_without_a_path_is_not_trained() -> None:
    cut = {"mask": "m", "collapsed": [], "cut_off": ["1.weight", "3.weight"], "density": 0.001, "effective_density": 0.0}

    def collapsed(**changes: Any) -> tuple[str, ...]:
        arm = Arm(target="net", method="snip", density=0.001, seed=3)
        run: Any = SimpleNamespace()
        return cut_of(run, arm, {"cuts": {"0.001": {**cut, **changes}}}).collapsed

    assert collapsed() == ("1.weight", "3.weight")
    assert collapsed(effective_density=0.0005) == ()  # some of its weights lead nowhere, not all
    assert collapsed(collapsed=["3.weight"]) == ("3.weight",)
    assert collapsed(cut_off=None, effective_density=None) == ()  # attention: paths cannot be told
