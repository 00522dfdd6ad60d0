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
from autosparse.library.compaction import compact_to_train
from autosparse.library.holding import with_dead_channels
from autosparse.models.arms.arm import Arm
from autosparse.models.channels.examples import example_of
from autosparse.models.masks import mask as masks
from autosparse.models.masks.allocation import global_topk
from autosparse.models.methods import registry
from autosparse.models.methods.contract import Method, Parts, Settings, Setup
from autosparse.models.networks.build import build_network
from autosparse.models.specs.grain import Narrowed
from autosparse.models.specs.run_specs import DataSpec, JobSpec, NetworkSpec, TrainSpec
from autosparse.models.training.images import ImageSet
from autosparse.models.training.loop import fit
from autosparse.models.training.trainer import Trainer
from autosparse.storage import paths
from autosparse.storage.checkpoints import load_tensors
from autosparse.storage.mask_files import dump_mask
from autosparse.storage.open_store import open_store
from autosparse.tasks.worker import compacted
from autosparse.tasks.worker.inputs import Launch, RunInputs, config_of, launched
from autosparse.tasks.worker.retrain_arm import ArmInputs, Level, retrain_arm
from autosparse.tasks.worker.train_network import dump_state
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
            **{"compact": False, "narrow": None, "initial": None},
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
    costs = found["deployed"]
    assert (costs["nonzeros"], costs["parameters"], costs["multiply_adds"]) == (WEIGHTS, WEIGHTS + 410, WEIGHTS)
    assert costs["bytes"]["best"] == costs["bytes"]["dense"] == 2 * (WEIGHTS + 410)


def test_a_masked_arm_counts_what_is_left(run: Body, tmp_path: Path) -> None:
    mask = {name: torch.ones(shape, dtype=torch.bool) for name, shape in (("1.weight", (300, 64)), ("3.weight", (100, 300)))}
    mask["5.weight"] = torch.arange(1000).reshape(10, 100) < 500
    open_store(str(tmp_path)).write("mask", dump_mask(mask))
    found = run(mask="mask")
    assert found["kept_density"] == masks.density(mask) == (WEIGHTS - 500) / WEIGHTS
    assert found["inference_macs"] == WEIGHTS - 500
    assert found["training_macs"] == pytest.approx(3 * (WEIGHTS - 500) * 256)


def test_a_narrow_arm_is_a_dense_network_of_its_share(run: Body) -> None:
    found = run(narrow=Narrowed(cost="weights", share=0.25))
    assert 0.24 * WEIGHTS < found["kept"] <= 0.25 * WEIGHTS
    assert found["weights"] == WEIGHTS and found["kept_density"] == found["effective_density"] == found["kept"] / WEIGHTS
    assert found["deployed"]["nonzeros"] == found["kept"] == found["inference_macs"]
    assert found["training_macs"] == 3 * found["kept"] * 256
    assert found["density_all"] == pytest.approx(0.25, rel=0.02)
    assert found["collapsed"] == []


def half_cut() -> masks.Mask:
    """150 units of the first layer without inputs, one of the second without outputs."""
    mask = {name: torch.ones(shape, dtype=torch.bool) for name, shape in (("1.weight", (300, 64)), ("3.weight", (100, 300)))}
    mask["5.weight"] = torch.ones(10, 100, dtype=torch.bool)
    mask["1.weight"][:150] = False
    mask["5.weight"][:, 7] = False
    return mask


def test_a_compacted_arm_trains_the_smaller_network_and_counts_against_the_whole_one(run: Body, tmp_path: Path) -> None:
    mask, store = half_cut(), open_store(str(tmp_path))
    store.write("mask", dump_mask(mask))
    whole, found = run(mask="mask"), run(mask="mask", compact=True)
    left = 64 * 150 + 150 * 99 + 99 * 10
    assert found["compacted"] == {
        "parameters": {"before": WEIGHTS + 410, "after": left + 150 + 99 + 10},
        "multiply_adds": {"before": WEIGHTS, "after": left},
        "mask": "mask",
    }
    assert found["kept_density"] == masks.density(mask) == whole["kept_density"]
    assert found["effective_density"] == left / WEIGHTS == whole["effective_density"]
    stored = load_tensors(store.read(paths.weights("arm")))
    assert stored["3.weight"].shape == (99, 150)
    assert found["density_all"] == sum(int(tensor.count_nonzero()) for tensor in stored.values()) / (WEIGHTS + 410)
    assert (found["kept"], found["weights"]) == (whole["kept"], WEIGHTS)
    assert (found["inference_macs"], found["training_macs"]) == (left, 3 * left * 256)
    assert found["data_digest"] == whole["data_digest"]
    assert "compacted" not in whole
    costs = found["deployed"]
    assert (costs["nonzeros"], costs["parameters"], costs["multiply_adds"]) == (left, left + 259, left)
    # afterwards biases answer where weights are gone, and the layers after them can take that up: the same, dead weights gone too
    assert {name: whole["deployed"][name] for name in ("nonzeros", "parameters", "multiply_adds")} == {
        name: costs[name] for name in ("nonzeros", "parameters", "multiply_adds")
    }


def test_dense_arms_and_methods_are_never_compacted(run: Body) -> None:
    assert "compacted" not in run(compact=True)
    assert "compacted" not in run(compact=True, method=Level(name="half(keep=0.5)", density=None))


def test_a_ticket_is_compacted_though_its_cut_off_channels_hold_constants(run: Body, tmp_path: Path) -> None:
    network = NetworkSpec(name="resnet8", width=4)
    big = build_network(network, image_shape=(1, 8, 8), num_classes=10, seed=3)
    with torch.no_grad():
        for name, param in big.named_parameters():
            param.add_(0.1 if name.endswith("bias") else 0)
    mask = masks.full(masks.prunable(big))
    name = list(mask)[1]
    mask[name][:2] = False  # two channels within the first block
    open_store(str(tmp_path)).write("mask", dump_mask(mask))
    open_store(str(tmp_path)).write("state", dump_state(big))
    found = run(network=network, mask="mask", state="state", start_step=1, compact=True)
    assert found["compacted"]["parameters"]["after"] < found["compacted"]["parameters"]["before"]
    assert load_tensors(open_store(str(tmp_path)).read(paths.weights("arm")))[name].shape[0] == 2


def test_what_cannot_be_compacted_is_trained_whole_and_says_why(run: Body, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_store(str(tmp_path)).write("mask", dump_mask(half_cut()))
    wrong = half_cut()
    wrong["1.weight"][150] = False
    monkeypatch.setattr(compacted, "compact_to_train", lambda whole, example, mask: compact_to_train(whole, example, wrong))
    found = run(mask="mask", compact=True)
    lost = 64 + 99  # of a unit that is alive
    assert found["compacted"] == {"reason": f"compact: Sequential: {lost} weights that lie on a path would be lost", "mask": "mask"}
    assert found["training_macs"] == pytest.approx(3 * masks.kept(half_cut()) * 256)

    nothing = {**half_cut(), "5.weight": torch.zeros(10, 100, dtype=torch.bool)}
    monkeypatch.setattr(compacted, "compact_to_train", compact_to_train)
    open_store(str(tmp_path)).write("mask", dump_mask(nothing))
    assert run(mask="mask", compact=True)["compacted"]["reason"].startswith("compact: Sequential: the mask leaves no path")


class Double(nn.Module):
    """Computes in float64, where 200 steps do not make rounding grow."""

    def __init__(self) -> None:
        super().__init__()
        self.net = build_network(NetworkSpec(name="resnet8", width=8), image_shape=(3, 8, 8), num_classes=4, seed=1).double()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.net(images.double())


def test_compacted_and_held_at_zero_are_one_function_after_200_steps() -> None:
    whole, stream = Double(), torch.Generator().manual_seed(0)
    scores = {name: torch.rand(param.shape, generator=stream) for name, param in masks.prunable(whole).items()}
    for score in scores.values():
        score[torch.rand(len(score), generator=stream) < 0.4] -= 1  # four of ten channels go first
    mask = global_topk(scores, 0.2)
    mask["net.head.weight"][:] = True
    with torch.no_grad():
        for name, param in whole.named_parameters():
            param.add_(0.1 if name.endswith("bias") else 0)
    made = compacted.compacted(whole, mask, (3, 8, 8))
    assert made.facts["parameters"]["after"] < 0.8 * made.facts["parameters"]["before"]
    data = ImageSet(torch.randint(0, 256, (800, 3, 8, 8), generator=stream, dtype=torch.uint8), torch.randint(4, (800,), generator=stream))
    train = TrainSpec(epochs=8, batch_size=32, lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4, schedule="constant")
    spec = DataSpec(name="digits", mean=(0.5,) * 3, std=(0.25,) * 3)
    held = dict(with_dead_channels(whole, mask, example_of((3, 8, 8))))
    losses: dict[str, list[float]] = {}
    for name, network, zeros in (("held", whole, held), ("made", made.network, made.mask)):
        trainer = Trainer(network=network, forward=network, spec=train, data=spec, job=JobSpec(), train=data, test=data, seed=0, mask=zeros)
        fit(trainer, on_epoch=lambda report, name=name: losses.setdefault(name, []).append(report.loss))
        assert trainer.step == 200
    assert losses["held"] == pytest.approx(losses["made"], rel=1e-9) and losses["held"][0] > 1.1 * losses["held"][-1]
    images = torch.randn(8, 3, 8, 8, generator=stream)
    torch.testing.assert_close(made.network.eval()(images), whole.eval()(images), rtol=1e-5, atol=1e-5)


def test_a_method_is_measured_on_the_network_that_would_be_used(run: Body, tmp_path: Path) -> None:
    found = run(method=Level(name="half(keep=0.5)", density=None))
    assert found["kept_density"] == (150 * 64 + 30_000 + 100) / WEIGHTS  # half of the first layer, one row of the last
    assert found["inference_macs"] == pytest.approx(150 * 64 + 30_000 + 7)  # the rewrite counts the last layer for itself
    assert found["training_macs"] == 3 * WEIGHTS * 256
    assert found["expected_density"] == 0.25
    assert found["deployed"]["multiply_adds"] == 150 * 64 + 150 * 100 + 7  # 150 units without a weight have left
    assert found["deployed"]["nonzeros"] == 150 * 64 + 150 * 100 + 100
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


@pytest.fixture
def half_mask(tmp_path: Path) -> dict[str, torch.Tensor]:
    mask = {name: torch.ones(shape, dtype=torch.bool) for name, shape in (("1.weight", (300, 64)), ("3.weight", (100, 300)))}
    mask["5.weight"] = torch.arange(1000).reshape(10, 100) < 500
    open_store(str(tmp_path)).write("mask", dump_mask(mask))
    return mask


@pytest.mark.usefixtures("half_mask")
def test_an_arm_begins_with_the_weights_that_its_mask_was_made_for(run: Body) -> None:
    dense = run()["initial_digest"]
    found = run(mask="mask", initial=dense)
    assert found["initial_digest"] == dense and "error" not in found
    for unknown in (run(mask="mask"), run(mask="mask", initial=None)):  # scorings of earlier versions do not say
        assert unknown["accuracy"] == found["accuracy"]
    other = run(mask="mask", initial=dense, control="reinit")  # other weights are what this control is about
    assert "error" not in other and other["initial_digest"] != dense
    assert run(seed=4)["initial_digest"] not in (dense, other["initial_digest"])


@pytest.mark.usefixtures("half_mask")
def test_a_mask_for_other_weights_is_refused_in_one_line(run: Body) -> None:
    dense = run()["initial_digest"]
    for control in (None, "shuffle", "rescale"):
        error = run(mask="mask", initial="0" * 32, control=control)["error"]
        assert error["type"] == "DataError" and error["message"] == (
            f"network: lenet300-100 with seed 3 has the initial weights {dense}, its mask is for {'0' * 32}; "
            "allowed: a factory that gives the same weights every time (torch, numpy.random and random are seeded), on machines of one kind"
        )


def test_a_factory_that_cannot_be_seeded_is_found_out(run: Body, tmp_path: Path) -> None:
    open_store(str(tmp_path)).write("mask", dump_mask({"1.weight": torch.ones(10, 64, dtype=torch.bool)}))
    network = NetworkSpec(name="tests.plugins.unseeded:network")
    scored = run(network=network)["initial_digest"]
    error = run(network=network, mask="mask", initial=scored)["error"]
    assert f"its mask is for {scored}" in error["message"] and "\n" not in error["message"]
