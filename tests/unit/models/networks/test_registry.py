"""The one door to the networks: seeds and initialization, factories of one's own, torchvision, and what is refused."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from autosparse.models import seeding
from autosparse.models.errors import SpecError
from autosparse.models.networks.build import build_network
from autosparse.models.networks.registry import find_builder
from autosparse.models.networks.torchvision_guard import import_torchvision
from autosparse.models.networks.torchvision_zoo import take_channels
from autosparse.models.specs.run_specs import NetworkSpec


def build(
    spec: NetworkSpec | str, *, shape: tuple[int, int, int] = (3, 32, 32), classes: int = 10, seed: int = 0, tried: bool = True
) -> nn.Module:
    spec = NetworkSpec(name=spec) if isinstance(spec, str) else spec
    return build_network(spec, image_shape=shape, num_classes=classes, seed=seed, tried=tried)


def parameters(network: nn.Module) -> int:
    return sum(param.numel() for param in network.parameters())


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of a user, by name: factories of every kind."""
    (tmp_path / "networks_of_mine.py").write_text(
        """
from torch import nn


def plain():
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 5))


def sized(num_classes, image_shape):
    return nn.Sequential(nn.Flatten(), nn.Linear(image_shape[0] * image_shape[1] * image_shape[2], num_classes))


def wide(*, num_classes, width=8):
    return nn.Sequential(nn.Conv2d(3, width, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes))


def normed():
    norm = nn.BatchNorm2d(2)
    nn.init.constant_(norm.weight, 0.5)
    nn.init.constant_(norm.bias, 0.25)
    return nn.Sequential(nn.Conv2d(3, 2, 1), norm, nn.BatchNorm2d(2, affine=False))


def demanding(depth):
    return plain()


class Holder:
    @staticmethod
    def inner(**keywords):
        assert set(keywords) <= {'num_classes'}
        return plain()


def nothing():
    return [1]


number = 3
"""
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "networks_of_mine", raising=False)
    return "networks_of_mine"


@pytest.mark.parametrize("init", ["kaiming_in", "kaiming_out", "own"])
def test_a_seed_gives_the_same_bits_and_leaves_the_global_generator_alone(init: str):
    spec = NetworkSpec(name="resnet8", width=4, init=init)  # type: ignore[arg-type]
    before = torch.get_rng_state()
    first = build(spec, seed=3).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(5)
    again, other = build(spec, seed=3).state_dict(), build(spec, seed=4).state_dict()
    assert list(first) == list(again)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["stem.0.weight"], other["stem.0.weight"])


def test_networks_are_float32_and_in_training_mode():
    network = build("resnet8")
    assert network.training
    assert {param.dtype for param in network.parameters()} == {torch.float32}


# stages.1.0.conv1 of ResNet-18: 3x3, 64 -> 128 channels, so fan_in = 576, fan_out = 1152; its classifier has 512 inputs
FIRST_OF_STAGE_2 = "stages.1.0.conv1.weight"


def test_kaiming_in_draws_convolutions_and_classifier_by_fan_in():
    state = build("resnet18", classes=100).state_dict()
    assert float(state[FIRST_OF_STAGE_2].std()) == pytest.approx((2 / 576) ** 0.5, rel=0.02)
    assert float(state["head.weight"].std()) == pytest.approx((2 / 512) ** 0.5, rel=0.02)
    assert float(state[FIRST_OF_STAGE_2].mean()) == pytest.approx(0, abs=1e-3)
    assert not state["head.bias"].any()
    assert float(state[FIRST_OF_STAGE_2].abs().max()) > 3 * (2 / 576) ** 0.5  # normal; a uniform one ends at sqrt(3) deviations


def test_kaiming_out_draws_convolutions_by_fan_out_and_leaves_the_classifier():
    state = build(NetworkSpec(name="resnet18", init="kaiming_out"), classes=100).state_dict()
    assert float(state[FIRST_OF_STAGE_2].std()) == pytest.approx((2 / 1152) ** 0.5, rel=0.02)
    bound = 512**-0.5  # torch draws a linear layer uniformly between +-1 / sqrt(inputs)
    assert 0.99 * bound < float(state["head.weight"].abs().max()) <= bound
    assert 0.5 * bound < float(state["head.bias"].abs().max()) <= bound


def test_own_is_what_the_layers_draw_by_themselves():
    with seeding.scoped(5, "init"):
        layer = nn.Linear(12, 300)
    network = build(NetworkSpec(name="lenet300-100", init="own"), shape=(3, 2, 2), seed=5)
    assert torch.equal(network.get_parameter("1.weight"), layer.weight)
    assert torch.equal(network.get_parameter("1.bias"), layer.bias)


@pytest.mark.parametrize(("init", "scale", "offset"), [("kaiming_in", 1.0, 0.0), ("kaiming_out", 1.0, 0.0), ("own", 0.5, 0.25)])
def test_batchnorm_starts_at_one_and_zero(own_module: str, init: str, scale: float, offset: float):
    network = build(NetworkSpec(name=f"{own_module}:normed", init=init), tried=False)  # type: ignore[arg-type]
    assert network.get_parameter("1.weight").tolist() == [scale, scale]
    assert network.get_parameter("1.bias").tolist() == [offset, offset]
    assert bool(network.get_parameter("0.bias").any()) == (init == "own")


def test_a_factory_gets_the_keywords_it_names(own_module: str):
    assert build(f"{own_module}:plain", tried=False).get_parameter("1.weight").shape == (5, 12)
    assert build(f"{own_module}:Holder.inner", tried=False).get_parameter("1.weight").shape == (5, 12)
    assert build(f"{own_module}:sized", shape=(2, 3, 4), classes=6).get_parameter("1.weight").shape == (6, 24)
    assert build(f"{own_module}:wide", classes=6, tried=False).get_parameter("0.weight").shape[0] == 8
    assert build(NetworkSpec(name=f"{own_module}:wide", width=5), tried=False).get_parameter("0.weight").shape[0] == 5


@pytest.mark.parametrize(
    ("factory", "reason"),
    [
        ("nothing", "a factory that returns a torch.nn.Module, not list"),
        ("number", "not callable: it is a int"),
        ("missing", "no such object: module 'networks_of_mine' has no attribute 'missing'"),
        ("demanding", "a factory that needs at most image_shape and num_classes (missing a required argument: 'depth')"),
    ],
)
def test_a_bad_factory_is_named(own_module: str, factory: str, reason: str):
    with pytest.raises(SpecError) as caught:
        build(f"{own_module}:{factory}")
    message = str(caught.value)
    assert message.startswith(f"network.name: '{own_module}:{factory}' is not allowed; allowed: ")
    assert reason in message
    assert "\n" not in message


@pytest.mark.parametrize("name", ["no_such_package.networks:build", ":build", "a:b:c", "math:", "builtins:dict"])
def test_what_is_no_factory_is_refused(name: str):
    with pytest.raises(SpecError, match=f"^network.name: '{name}' is not allowed; allowed: "):
        build(name)


def test_an_unknown_network_is_refused_with_the_nearest_name():
    with pytest.raises(
        SpecError, match=r"^network.name: 'resnet21' is not known; did you mean 'resnet\d+'\?; known: lenet300-100, local-mixer, res"
    ):
        find_builder("resnet21")


@pytest.mark.parametrize("name", ["lenet300-100", "torchvision:resnet18"])
def test_a_width_where_there_is_none_is_refused(name: str):
    with pytest.raises(SpecError, match=f"^network.width: 32 is not allowed; allowed: None for {name}"):
        build(NetworkSpec(name=name, width=32))


@pytest.mark.parametrize("name", ["lenet300-100", "vgg11", "torchvision:resnet18"])
def test_a_stem_stride_where_there_is_none_is_refused(name: str):
    with pytest.raises(SpecError, match=f"^network.stem_stride: 2 is not allowed; allowed: 1 for {name}"):
        build(NetworkSpec(name=name, stem_stride=2))


def test_torchvision_network_takes_channels_and_classes():
    network = build("torchvision:resnet18", shape=(1, 32, 32), classes=7).eval()
    stem = network.get_submodule("conv1")
    assert isinstance(stem, nn.Conv2d)
    assert (stem.in_channels, stem.kernel_size, stem.stride, stem.padding, stem.bias) == (1, (7, 7), (2, 2), (3, 3), None)
    assert network(torch.zeros(2, 1, 32, 32)).shape == (2, 7)
    assert parameters(build("torchvision:resnet18", classes=1000)) == 11_689_512  # as torchvision documents it


def test_googlenet_has_one_output_in_training():
    outputs = build("torchvision:googlenet", classes=7)(torch.zeros(2, 3, 64, 64))
    assert isinstance(outputs, Tensor) and outputs.shape == (2, 7)


def test_an_unknown_torchvision_network_is_refused_with_the_nearest_name():
    message = "^network.name: 'torchvision:resnet181' is not known; did you mean 'torchvision:resnet18'?"
    with pytest.raises(SpecError, match=message.replace("?", r"\?")):
        build("torchvision:resnet181")


@pytest.mark.parametrize("rgb_convolutions", [0, 2])
def test_channels_are_not_guessed(rgb_convolutions: int):
    network = nn.Sequential(nn.Conv2d(4, 4, 1), *(nn.Conv2d(3, 4, 1) for _ in range(rgb_convolutions)))
    with pytest.raises(SpecError, match=f"exactly one convolution of 3 input channels, not {rgb_convolutions}, for images of 1 channels"):
        take_channels(network, 1, "strange")


def test_torchvision_is_imported_when_asked_for_and_not_before():
    program = (
        "import sys; from autosparse.models.networks.registry import NETWORKS; assert 'torchvision' not in sys.modules;"
        "from autosparse.models.networks.torchvision_guard import import_torchvision; import_torchvision();"
        "assert 'torchvision' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[4], timeout=120)


def test_torchvision_can_be_asked_for_twice():
    assert import_torchvision() is import_torchvision()
    assert hasattr(torch.ops.torchvision, "nms")
