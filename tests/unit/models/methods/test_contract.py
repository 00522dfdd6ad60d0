"""One template for every registered method: what `models/methods/contract.py` asks of it, on the first small network that it takes."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from autosparse.models import seeding
from autosparse.models.masks.mask import checksum
from autosparse.models.methods import outcome
from autosparse.models.methods.contract import Parts, Settings, Setup
from autosparse.models.methods.names import spelled
from autosparse.models.methods.registry import METHODS, level_name, parse
from autosparse.models.networks.build import build_network
from autosparse.models.networks.flops import forward_macs
from autosparse.models.networks.registry import NETWORKS
from autosparse.models.specs.run_specs import DataSpec, JobSpec, NetworkSpec, TrainSpec
from autosparse.models.training.images import ImageSet
from autosparse.models.training.loop import EpochReport, fit
from autosparse.models.training.trainer import Trainer
from autosparse.storage.checkpoints import TrainingState, load_training_state, save_training_state

SHAPE, CLASSES, BATCH, STEPS = (3, 8, 8), 4, 8, 2
TRAIN = TrainSpec(epochs=2, batch_size=BATCH, lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4, schedule="onecycle", warmup=0.3)
LONG = replace(TRAIN, epochs=6)
DATA = DataSpec(name="digits", mean=(0.5,) * 3, std=(0.25,) * 3, augment="shift_flip", pad=1)
SMALL = {"resnet8": {"width": 4}, "local-mixer": {}, "row-lstm": {"width": 8}}
# settings under which a method has most to remember, beside its usual levels
RICH = (
    *(f"constrained_l0({more},gate_lr=.2,dual_lr=1)" for more in ("unit=filter", "unit=weight", "scope=layer")),
    *(f"dep_l0(direction={direction},generator_lr=.02)" for direction in ("forward", "backward")),
    *(f"gdp({more},l1=.05)" for more in ("penalty=5", "target=.3,dual_lr=1")),
    *("ga_threshold(s_end=-1)", "ga_topk()", "str(s_end=-1)"),
    *("dst_ee(interval=4)", "dst_ee(interval=4,grow=unfired)", "rigl(interval=4)", "set(interval=4)"),  # updates at steps 4 and 8
    *("grda(c=.05,mu=.6)", "grda(c=.05,mu=.6,select=all)", "sdp(c=5,mu=.6)"),
    *("fwdgrad()", "fw_rnn(inner=4)"),
)
LEVELS = [pytest.param(name, level, id=level_name(name, level)) for name, method in METHODS.items() for level in method.levels]


def setup(name: str, settings: Settings, train: TrainSpec = TRAIN) -> Setup:
    """Of the first network that the method does not refuse."""
    method = METHODS[name]
    for network, keywords in SMALL.items():
        if network in NETWORKS:
            found = Setup(
                network=build_network(NetworkSpec(name=network, **keywords), image_shape=SHAPE, num_classes=CLASSES, seed=1),
                train=train,
                density=0.5 if method.by_density else None,
                head=True,
                image_shape=SHAPE,
                steps_per_epoch=STEPS,
                seed=3,
            )
            if method.refuses(found, settings) is None:
                found.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
                return found
    raise AssertionError(f"{name} refuses all of {', '.join(SMALL)}")


def images(count: int) -> ImageSet:
    stream = torch.Generator().manual_seed(count)
    return ImageSet(torch.randint(0, 256, (count, *SHAPE), generator=stream, dtype=torch.uint8), torch.arange(count) % CLASSES)


def trainer(found: Setup, parts: Parts) -> Trainer:
    network = found.network
    return Trainer(
        network=network,
        forward=network,
        spec=found.train,
        data=DATA,
        job=JobSpec(),
        train=images(BATCH * STEPS),
        test=images(6),
        seed=found.seed,
        parts=parts,
    )


def outputs(network: nn.Module) -> torch.Tensor:
    network.eval()
    with torch.no_grad():
        return network(torch.linspace(-1, 1, 5 * math.prod(SHAPE)).reshape(5, *SHAPE))


@pytest.mark.parametrize("name", METHODS)
def test_levels_lead_back_to_themselves_and_a_card_says_something(name: str) -> None:
    method = METHODS[name]
    assert method.levels and all(isinstance(level, method.settings) for level in method.levels)
    assert [parse(level_name(name, level)) for level in method.levels] == [(name, (level,)) for level in method.levels]
    texts = spelled("methods", name)
    assert len(set(texts)) == len(method.levels)
    assert [spelled("methods", text) for text in texts] == [(text,) for text in texts]
    assert len(method.card) > 40


@pytest.mark.parametrize(("name", "level"), LEVELS)
def test_it_trains_is_taken_up_and_leaves_a_plain_network(name: str, level: Settings, tmp_path: Path) -> None:
    found = setup(name, level)
    names = [key for key, _ in found.network.named_parameters()]
    parts = METHODS[name].parts(found, level)
    one, kept, facts = trainer(found, parts), [], []

    def keep(report: EpochReport) -> None:
        facts.append(report.facts)
        save_training_state(tmp_path, one.network.state_dict(), one.state(), {"step": one.step})
        kept.append(load_training_state(tmp_path))

    fit(one, on_epoch=keep)
    assert one.step == 2 * STEPS
    assert all(isinstance(value, float) and math.isfinite(value) for fact in facts for value in fact.values())
    _taken_up_it_ends_in_the_same_bits(one, kept[0], name, level)

    before = outputs(one.network)
    plain = outcome.bake(one.network, parts)
    assert [key for key, _ in plain.named_parameters()] == names
    torch.testing.assert_close(outputs(plain), before, atol=1e-5, rtol=1e-4)
    used = parts.rewrite(plain, seeding.generator(3, "method", "rewrite")) if parts.rewrite else plain
    assert outputs(used).isfinite().all()
    metered = parts.cost(used) if parts.cost else {}
    macs = forward_macs(used, SHAPE)
    assert set(metered) <= set(macs) and all(0 < count < float("inf") for count in metered.values())
    assert 0 <= outcome.inference_macs(used, macs, metered) < float("inf")
    shares = outcome.densities(used, plain, head=True, own=outcome.own_tensors(one.network, parts))
    assert all(share is None or 0 <= share <= 1 for share in shares.values())


@pytest.mark.parametrize("text", RICH)
def test_taken_up_from_the_files_of_an_epoch_under_way_it_ends_in_the_same_bits(text: str, tmp_path: Path) -> None:
    name, (level,) = parse(text)
    found = setup(name, level, LONG)
    one, facts = trainer(found, METHODS[name].parts(found, level)), []

    def after_step(now: Trainer) -> None:
        if now.step == 7:  # of 12, within an epoch of two
            save_training_state(tmp_path, now.network.state_dict(), now.state(), {"step": now.step})

    fit(one, on_epoch=lambda report: facts.append(report.facts), after_step=after_step)
    assert _taken_up_it_ends_in_the_same_bits(one, load_training_state(tmp_path), name, level) == facts[3:]


def _taken_up_it_ends_in_the_same_bits(whole: Trainer, kept: TrainingState, name: str, level: Settings) -> list[dict[str, float]]:
    """What the rest of the training told of its epochs."""
    found, facts = setup(name, level, whole.spec), []
    again = trainer(found, METHODS[name].parts(found, level))
    again.restore(kept.network, kept.optimizer, kept.progress["step"])
    fit(again, on_epoch=lambda report: facts.append(report.facts))
    expected, ended = whole.network.state_dict(), again.network.state_dict()
    assert list(ended) == list(expected)
    different = [key for key, tensor in expected.items() if not torch.equal(tensor, ended[key])]
    assert not different
    assert checksum(whole.mask or {}) == checksum(again.mask or {})
    assert whole.parts.report() == again.parts.report()
    return facts
