"""HASTE: merging channels by their hash codes, against the dense convolution, merged filters and counts on paper."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from autosparse.models import seeding
from autosparse.models.errors import SpecError
from autosparse.models.masks import mask as masks
from autosparse.models.methods.contract import Setup
from autosparse.models.methods.haste import (
    HASTE,
    Haste,
    MergedConv2d,
    buckets,
    cost,
    draw_projections,
    hash_codes,
    merge,
    replaceable,
    reset,
    rewrite,
)
from autosparse.models.methods.registry import parse
from autosparse.models.networks.build import build_network
from autosparse.models.specs.run_specs import DataSpec, JobSpec, NetworkSpec, TrainSpec
from autosparse.models.training.images import ImageSet
from autosparse.models.training.loop import evaluate, fit
from autosparse.models.training.trainer import Trainer


def convolution(channels: int = 32, out: int = 8, kernel: int = 3, dtype: torch.dtype = torch.float64, **keywords: Any) -> nn.Conv2d:
    with seeding.scoped(0, "convolution"):
        return nn.Conv2d(channels, out, kernel, **{"padding": kernel // 2, **keywords}).to(dtype)


def merged(dense: nn.Conv2d, **settings: Any) -> MergedConv2d:
    return MergedConv2d(dense, Haste(**settings), seeding.generator(1, "projections"))


def images(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=seeding.generator(2), dtype=dtype)


def copies(noise: float, dtype: torch.dtype = torch.float64) -> Tensor:
    """Three images of 32 channels: 4 noisy copies of 8."""
    base = images(3, 8, 10, 11, dtype=dtype).repeat(1, 4, 1, 1)
    return base + noise * torch.randn(base.shape, generator=seeding.generator(3), dtype=dtype)


@pytest.mark.parametrize(("dtype", "error"), [(torch.float64, 1e-13), (torch.float32, 1e-5)])
def test_equal_channels_merge_without_error_at_a_quarter_of_the_depth(dtype: torch.dtype, error: float) -> None:
    dense = convolution(dtype=dtype)
    layer, inputs = merged(dense, bits=40), copies(0.0, dtype)
    assert (layer(inputs) - dense(inputs)).abs().max() < error
    assert layer.cost()["kept_depth"] == 0.25


def test_more_bits_keep_more_depth_and_err_less() -> None:
    dense, inputs = convolution(), copies(0.3)
    expected, depths, errors = dense(inputs), [], []
    for bits in (2, 6, 10, 14, 20, 40):
        layer = merged(dense, bits=bits)
        errors.append(float((layer(inputs) - expected).detach().norm() / expected.detach().norm()))
        depths.append(layer.cost()["kept_depth"])
    assert depths == sorted(depths) and depths[0] < 0.2 and depths[-1] > 0.9
    assert errors == sorted(errors, reverse=True) and errors[0] > 0.4 and errors[-1] < 0.3


@pytest.mark.parametrize(
    ("kernel", "padding", "size"), [(1, 0, (9, 6)), (3, 1, (7, 9)), (3, 0, (8, 3)), (3, (0, 2), (6, 7)), (5, 2, (7, 8)), (5, 1, (5, 6))]
)
def test_where_no_codes_collide_it_is_the_dense_convolution(kernel: int, padding: Any, size: tuple[int, int]) -> None:
    dense = convolution(6, 5, kernel, padding=padding, bias=kernel != 3)
    layer, inputs = merged(dense, bits=62, zeros=0.0), images(2, 6, *size)
    torch.testing.assert_close(layer(inputs), dense(inputs), rtol=0, atol=1e-13)
    assert layer.cost()["kept_depth"] == 1.0


@pytest.mark.parametrize("center", ["none", "channel_mean", "self_mean"])
def test_channels_in_another_order_with_their_filter_slices_give_the_same(center: str) -> None:
    dense, order = convolution(), torch.randperm(32, generator=seeding.generator(4))
    other = convolution()
    with torch.no_grad():
        other.weight.copy_(dense.weight[:, order])
    inputs = copies(0.3)
    first, second = merged(dense, bits=5, center=center), merged(other, bits=5, center=center)
    torch.testing.assert_close(second(inputs[:, order]), first(inputs), rtol=0, atol=1e-12)
    assert first.cost()["kept_depth"] == second.cost()["kept_depth"] < 0.9


def test_bucket_means_through_the_convolution_are_merged_filters_on_merged_channels() -> None:
    patch, weight = images(1, 6, 25), convolution(6, 4).weight.detach()
    codes = torch.tensor([[7, 0, 7, 3, 0, 7]])
    numbers, depth = buckets(codes)
    assert (numbers.tolist(), depth.tolist()) == ([[2, 0, 2, 1, 0, 2]], [3])
    rows = torch.stack([patch[0, members].mean(0) for members in ([1, 4], [3], [0, 2, 5])]).view(1, 3, 5, 5)
    filters = torch.stack([weight[:, members].sum(1) for members in ([1, 4], [3], [0, 2, 5])], dim=1)
    expected = functional.conv2d(rows, filters)
    ours = functional.conv2d(merge(patch, numbers).view(1, 6, 5, 5), weight)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-14)


def test_codes_are_the_signs_of_centred_rows() -> None:
    rows = torch.tensor([[[1.0, 2.0], [3.0, 2.0]]])  # one patch of two channels and two pixels
    projections = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, -1.0]])
    assert hash_codes(rows, projections, "none").tolist() == [[0b011, 0b111]]
    assert hash_codes(rows, projections, "channel_mean").tolist() == [[0b000, 0b101]]  # rows (-1, 0) and (1, 0)
    assert hash_codes(rows, projections, "self_mean").tolist() == [[0b010, 0b101]]  # rows (-.5, .5) and (.5, -.5)


def test_projections_are_sparse_signs_of_a_seed() -> None:
    drawn = draw_projections(62, 40, 2 / 3, seeding.generator(5))
    shares = [float((drawn == value).float().mean()) for value in (-1, 0, 1)]
    assert shares == pytest.approx([1 / 6, 2 / 3, 1 / 6], abs=0.005)  # 99,200 numbers: a deviation of .0015
    assert torch.equal(drawn, draw_projections(62, 40, 2 / 3, seeding.generator(5)))
    assert not (draw_projections(62, 40, 0.0, seeding.generator(5)) == 0).any()


def test_costs_are_those_on_paper() -> None:
    # 4 x 4 images, padded: 2 x 2 tiles of 3, 1, 3, 1 outputs a side; 4 channels, two pairs of equal ones; 5 filters
    layer = merged(convolution(4, 5), bits=30, zeros=0.0)
    layer(images(3, 2, 4, 4).repeat(1, 2, 1, 1))
    assert layer.cost() == {
        "kept_depth": 0.5,
        "dense": 16 * 4 * 9 * 5,
        "center": 2 * 4 * 4 * 25,
        "hash": 4 * 4 * 30 * 25,
        "merge_inputs": 4 * 2 * 25,
        "merge_filters": 4 * 2 * 9 * 5,
        "conv": 16 * 2 * 9 * 5,
        "merged": 800 + 12_000 + 200 + 360 + 1_440,
    }


def network(name: str = "resnet8") -> nn.Module:
    return build_network(
        NetworkSpec(name=name, width=8 if name != "lenet300-100" else None), image_shape=(3, 12, 12), num_classes=4, seed=0
    )


def test_a_rewritten_network_is_a_copy_with_the_parameters_of_the_trained_one() -> None:
    head = nn.Linear(8 * 36, 2).double()
    trained = nn.Sequential(convolution(3, 6), nn.Tanh(), convolution(6, 8), nn.Sequential(convolution(8, 8)), nn.Flatten(), head)
    rewritten = rewrite(trained, seeding.generator(1), Haste(bits=62, zeros=0.0))
    assert not any(isinstance(module, MergedConv2d) for module in trained.modules())
    before, after = trained.state_dict(), rewritten.state_dict()
    assert list(before) == list(after) and all(torch.equal(before[name], after[name]) for name in before)
    assert {name: p.shape for name, p in masks.prunable(trained).items()} == {n: p.shape for n, p in masks.prunable(rewritten).items()}
    inputs = images(5, 3, 6, 6)
    torch.testing.assert_close(rewritten(inputs), trained(inputs), rtol=0, atol=1e-13)
    told = cost(rewritten)
    assert told["images"] == 5 and told["kept_depth"] == 1 and list(told["layers"]) == replaceable(trained, 1) == ["2", "3.0"]
    reset(rewritten)
    assert cost(rewritten)["images"] == 0


def test_the_stem_and_convolutions_with_stride_stay() -> None:
    names = ["stages.0.0.conv1", "stages.0.0.conv2", "stages.1.0.conv2", "stages.2.0.conv2"]
    assert replaceable(network(), 1) == names
    assert replaceable(network(), 0) == ["stem.0", *names]
    assert replaceable(network(), 2) == names[1:]


def test_fewer_bits_save_more_of_a_network_and_a_seed_gives_the_same_bits() -> None:
    trained, inputs = network().eval(), images(4, 3, 12, 12, dtype=torch.float32)
    rewritten = [rewrite(trained, seeding.generator(1), Haste(bits=bits)) for bits in (2, 14, 14)]
    outputs = [one(inputs) for one in rewritten]
    few, many, again = (cost(one) for one in rewritten)
    assert torch.equal(outputs[1], outputs[2]) and many == again
    assert not torch.equal(outputs[0], outputs[1])
    assert few["kept_depth"] < many["kept_depth"] < 1 and few["merged"] < few["dense"] == many["dense"]


def test_chunks_of_a_batch_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, inputs = merged(convolution(), bits=5), copies(0.3)
    whole, told = layer(inputs), layer.cost()
    layer.reset()
    monkeypatch.setattr("autosparse.models.methods.haste.CHUNK", 1)
    torch.testing.assert_close(layer(inputs), whole, rtol=0, atol=1e-13)
    assert layer.cost() == told


def setup(module: nn.Module) -> Setup:
    train = TrainSpec(epochs=1, batch_size=4, lr=0.1, momentum=0.9, nesterov=False, weight_decay=0.0, schedule="constant")
    return Setup(network=module, train=train, density=None, head=True, image_shape=(3, 12, 12), steps_per_epoch=2, seed=0)


def test_its_part_is_the_rewriting() -> None:
    given = setup(network())
    assert HASTE.refuses(given, Haste()) is None
    rewritten = HASTE.parts(given, Haste()).rewrite
    assert rewritten is not None
    assert cost(rewritten(given.network, seeding.generator(0)))["layers"]


def test_a_trained_network_keeps_most_of_its_accuracy_at_a_lower_cost() -> None:
    labels = torch.arange(200) % 4
    pixels = torch.randint(0, 100, (200, 1, 8, 8), generator=seeding.generator(4))
    pixels[torch.arange(200), 0, labels * 2] += 150  # a bright row says the class
    data = ImageSet(pixels.to(torch.uint8), labels)
    trained = build_network(NetworkSpec(name="resnet8", width=16), image_shape=(1, 8, 8), num_classes=4, seed=0)
    spec = TrainSpec(epochs=3, batch_size=20, lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.0, schedule="onecycle")
    one = Trainer(trained, trained, spec, DataSpec(name="digits", mean=(0.3,), std=(0.25,)), JobSpec(), data, data, seed=1)
    fit(one, on_epoch=lambda report: None)
    accuracies, costs = [evaluate(one)["accuracy"]], [1.0]
    for bits in (10, 2):
        one.network = rewrite(trained, seeding.generator(1), Haste(bits=bits))
        accuracies.append(evaluate(one)["accuracy"])
        told = cost(one.network)
        costs.append(told["merged"] / told["dense"])
        assert told["images"] == 200
    assert accuracies[0] > 0.95 and accuracies[1] > accuracies[0] - 0.05 and accuracies[2] < accuracies[1]
    assert 1 > costs[1] > costs[2]


@pytest.mark.parametrize(("name", "first"), [("lenet300-100", 1), ("resnet8", 9)])
def test_a_network_without_such_a_convolution_is_refused(name: str, first: int) -> None:
    reason = HASTE.refuses(setup(network(name)), Haste(first=first))
    assert reason and "\n" not in reason and f"from convolution {first} on" in reason
    with pytest.raises(SpecError) as caught:
        rewrite(network(name), seeding.generator(0), Haste(first=first))
    assert str(caught.value) == reason


@pytest.mark.parametrize("text", ["haste(bits=63)", "haste(bits=0)", "haste(zeros=1)", "haste(center=median)", "haste(first=-1)"])
def test_settings_out_of_range_are_named(text: str) -> None:
    with pytest.raises(SpecError, match=f"^haste.{text[6:].split('=')[0]}: ") as caught:
        parse(text)
    assert "\n" not in str(caught.value)


def test_its_levels_are_numbers_of_bits() -> None:
    assert [level.bits for level in parse("haste")[1]] == [6, 10, 14]  # type: ignore[attr-defined]
