"""Structured directional pruning: which parameters make a group, and what a group that vanished leaves behind."""

import dataclasses
from math import sqrt

import pytest
import torch
from torch import nn
from torch.nn import functional

from autosparse.models.errors import SpecError
from autosparse.models.masks import mask as masks
from autosparse.models.methods.contract import Parts, Setup
from autosparse.models.methods.dual_averaging import Family
from autosparse.models.methods.filter_groups import filter_groups, norms_behind
from autosparse.models.methods.registry import METHODS, parse
from autosparse.models.networks.build import build_network
from autosparse.models.specs.run_specs import DataSpec, JobSpec, NetworkSpec, TrainSpec
from autosparse.models.training.images import ImageSet
from autosparse.models.training.loop import fit
from autosparse.models.training.trainer import Trainer

SPEC = TrainSpec(epochs=30, batch_size=16, lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4, schedule="constant")
SHAPE = (3, 8, 8)


class TwoBranches(nn.Module):
    """A block of a residual network, with a bias and a BatchNorm behind the addition."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.conv2, self.norm2 = nn.Conv2d(6, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.short, self.after = nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        inner = functional.relu(self.norm1(self.conv1(images)))
        return self.head(functional.relu(self.after(self.norm2(self.conv2(inner)) + self.short(images))).mean((2, 3)))


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)  # noqa: TID251
        return TwoBranches()


def parts(module: nn.Module, text: str, *, head: bool = True) -> Parts:
    name, (settings,) = parse(text)
    setup = Setup(network=module, train=SPEC, density=None, head=head, image_shape=SHAPE, steps_per_epoch=10, seed=5)
    return METHODS[name].parts(setup, settings)


def trained(text: str, *, epochs: int = 10) -> tuple[Trainer, dict[str, float]]:
    stream, module = torch.Generator().manual_seed(1), network()
    pixels, labels = torch.randint(0, 160, (160, *SHAPE), generator=stream, dtype=torch.uint8), torch.arange(160) % 3
    for label in range(3):
        pixels[labels == label, label] += 60  # one colour per class
    images = ImageSet(pixels, labels)
    one = Trainer(
        network=module,
        forward=module,
        spec=dataclasses.replace(SPEC, epochs=epochs),
        data=DataSpec(name="digits", mean=(0.5,) * 3, std=(0.25,) * 3),
        job=JobSpec(),
        train=images,
        test=images,
        seed=5,
        parts=parts(module, text),
    )
    fit(one, on_epoch=lambda report: None)
    return one, one.parts.report()


def names(module: nn.Module, params: list[nn.Parameter], family: Family) -> list[tuple[str, int]]:
    known = {id(param): name for name, param in module.named_parameters()}
    return [(known[id(params[place])], dim) for place, dim in family.members]


def test_a_filter_has_its_bias_and_the_norm_that_reads_it_and_a_linear_layer_its_inputs() -> None:
    module = network()
    params, families = filter_groups(module, SHAPE)
    assert [names(module, params, family) for family in families] == [
        [("conv1.weight", 0), ("conv1.bias", 0), ("norm1.weight", 0), ("norm1.bias", 0)],
        [("conv2.weight", 0), ("norm2.weight", 0), ("norm2.bias", 0)],
        [("short.weight", 0)],  # the norm behind the addition reads no convolution
        [("head.weight", 1)],
    ]
    assert [family.weight for family in families] == [1.0] * 4
    assert len({id(param) for param in params}) == len(params) == 9


def test_weights_by_size() -> None:
    """Groups of 27 + 3, 54 + 2, 3 and 3 numbers, six of the first and four of each other: mean (180 + 224 + 12 + 12) / 18."""
    _, families = filter_groups(network(), SHAPE, by_size=True)
    mean = 428 / 18
    assert [family.weight for family in families] == pytest.approx([sqrt(30 / mean), sqrt(56 / mean), sqrt(3 / mean), sqrt(3 / mean)])


def test_a_classifier_is_in_no_group_where_it_is_not_prunable() -> None:
    module = network()
    params, families = filter_groups(module, SHAPE, head=False)
    assert len(families) == 3 and not any(param is module.head.weight for param in params)  # type: ignore[union-attr]


def test_a_convolution_that_is_the_classifier_is_grouped_by_its_inputs() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 10, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    params, families = filter_groups(module, SHAPE)
    assert [names(module, params, family) for family in families] == [[("0.weight", 0), ("0.bias", 0)], [("2.weight", 1)]]


class Around(nn.Module):
    """A convolution whose output is changed in place before the BatchNorm reads it, and one whose output is read twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)
        self.second, self.left, self.right = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm2d(4, affine=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        made = self.first(images)
        made += 1
        again = self.second(self.norm(made))
        return self.left(again) + self.right(again)


def test_only_a_norm_that_reads_the_very_output_with_a_scale_of_its_own_is_behind() -> None:
    module = Around()
    module.left.eval()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    assert norms_behind(module, SHAPE) == {module.second: [module.left]}
    assert module.training and module.right.training and not module.left.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())


@pytest.mark.parametrize("name", ["resnet8", "resnet20", "resnet50", "vgg11"])
def test_every_convolution_of_resnets_and_vggs_has_its_own_norm(name: str) -> None:
    module = build_network(NetworkSpec(name=name, width=4), image_shape=(3, 32, 32), num_classes=10, seed=0)
    convolutions = [part for part in module.modules() if isinstance(part, nn.Conv2d)]
    norms = [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)]
    found = norms_behind(module, (3, 32, 32))
    assert found == dict(zip(convolutions, ([norm] for norm in norms), strict=True))  # in these definitions each follows its convolution


def test_of_a_preactivated_block_only_the_inner_convolution_has_a_norm() -> None:
    module = build_network(NetworkSpec(name="wideresnet28-10", width=1), image_shape=(3, 32, 32), num_classes=10, seed=0)
    found = {id(norm) for norms in norms_behind(module, (3, 32, 32)).values() for norm in norms}
    expected = {id(part) for name, part in module.named_modules() if name.endswith("norm2")}
    expected.add(id(next(part for name, part in module.named_modules() if name.endswith("norm1"))))  # it reads the stem itself
    assert found == expected


def test_a_vanished_group_leaves_exactly_zero_behind_its_norm() -> None:
    one, facts = trained("sdp(c=0.8,mu=0.8)")
    module = one.network
    assert isinstance(module, TwoBranches)
    dead = [not module.conv1.weight[i].any() for i in range(6)]
    assert 0 < sum(dead) < 6
    for index in range(6):
        group = (module.conv1.weight[index], module.conv1.bias[index], module.norm1.weight[index], module.norm1.bias[index])  # type: ignore[index]
        assert [bool(part.any()) for part in group] == [not dead[index]] * 4
    for mode in (True, False):
        out = module.train(mode).norm1(module.conv1(torch.randn(5, *SHAPE, generator=torch.Generator().manual_seed(2))))
        assert [not out[:, index].any() for index in range(6)] == dead
    assert facts["groups"] == sum(_alive(module)) / 18


def _alive(module: nn.Module) -> list[bool]:
    params, families = filter_groups(module, SHAPE)
    slices = [params[family.members[0][0]].movedim(family.members[0][1], 0) for family in families]
    return [bool(part.any()) for weight in slices for part in weight]


def test_fewer_groups_stay_with_a_larger_mu_and_no_parameter_outside_a_group_shrinks() -> None:
    ends = [trained(f"sdp(c=1.5,mu={mu})") for mu in (0.51, 0.7, 0.9)]
    shares = [facts["groups"] for _, facts in ends]
    assert shares[0] > shares[1] > shares[2] > 0
    assert ends[0][1]["density"] > ends[1][1]["density"] > ends[2][1]["density"]
    for one, _ in ends:
        assert all(one.network.get_parameter(name).all() for name in ("after.weight", "after.bias", "head.bias"))


def test_the_facts_of_a_network_at_its_start() -> None:
    module = network()
    report = parts(module, "sdp()").report()
    zeros = sum(int((param == 0).sum()) for param in module.parameters())
    assert zeros == 6 + 4 + 4  # the shifts of the norms
    total = sum(param.numel() for param in module.parameters())
    assert report == {"threshold": 0.0, "groups": 1.0, "density": 1.0, "density_all": pytest.approx(1 - 14 / total)}


def test_without_a_threshold_it_is_grda_without_one() -> None:
    ends = [trained(text, epochs=2)[0].network.state_dict() for text in ("sdp(c=0)", "grda(c=0)")]
    assert all(torch.equal(tensor, ends[1][name]) for name, tensor in ends[0].items())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sdp(c=-1)", "sdp.c: -1.0 is not allowed; allowed: >= 0 and <= 10"),
        ("sdp(mu=0.2)", "sdp.mu: 0.2 is not allowed; allowed: >= 0.4 and < 1"),
        ("sdp(variant=alternating)", "sdp.variant: 'alternating' is not allowed; allowed: group_dual_averaging"),
        ("sdp(weighting=best)", "sdp.weighting: 'best' is not allowed; allowed: size | none"),
    ],
)
def test_settings_out_of_range_are_named_in_one_line(text: str, message: str) -> None:
    with pytest.raises(SpecError) as error:
        parse(text)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_network_without_a_prunable_layer_is_refused() -> None:
    with pytest.raises(SpecError, match="at least one prunable"):
        parts(nn.Sequential(nn.Flatten(), nn.LayerNorm(192)), "sdp()")


def test_the_card_says_that_it_is_a_reconstruction() -> None:
    assert "reconstruction" in METHODS["sdp"].card.lower()
    assert masks.total(masks.full(masks.prunable(network()))) == 162 + 216 + 12 + 12
