"""Forward gradients: variances by formula, directional derivatives against backpropagation, local losses, and trainings."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from autosparse.models.criteria.registry import CRITERIA
from autosparse.models.errors import SpecError
from autosparse.models.masks import mask as masks
from autosparse.models.masks.gates import effective, effective_density
from autosparse.models.methods.contract import Setup
from autosparse.models.methods.forward_gradient import (
    FWDGRAD,
    Estimates,
    ForwardGradient,
    LocalHeads,
    backpropagate_locally,
    draw_noise,
    local_tangents,
    perturb_locally,
    perturb_outputs,
    perturb_weights,
    readouts,
    slope,
)
from autosparse.models.methods.registry import parse
from autosparse.models.networks.build import build_network
from autosparse.models.networks.local_mixer import LocalMixer, local_mixer
from autosparse.models.seeding import generator
from autosparse.models.specs.run_specs import LOOKING_AHEAD, DataSpec, JobSpec, NetworkSpec, TrainSpec
from autosparse.models.training.images import ImageSet
from autosparse.models.training.loop import fit
from autosparse.models.training.trainer import Trainer

SPEC = TrainSpec(epochs=12, batch_size=20, lr=0.05, momentum=0.9, nesterov=False, weight_decay=0.0, schedule="cosine")
DRAWS = 2000


def gradients(network: nn.Module) -> dict[str, Tensor]:
    """Those there are, which are taken away."""
    found = {name: param.grad for name, param in network.named_parameters() if param.grad is not None}
    network.zero_grad(set_to_none=True)
    return found


def exact(network: nn.Module, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
    functional.cross_entropy(network(images), labels).backward()
    return gradients(network)


def batch(*shape: int, dtype: torch.dtype = torch.float64, classes: int = 3) -> tuple[Tensor, Tensor]:
    images = torch.randn(*shape, generator=generator(1), dtype=dtype)
    return images, torch.randint(classes, (shape[0],), generator=generator(2))


@pytest.mark.parametrize(("estimator", "ratio"), [(perturb_weights, 201), (perturb_outputs, 11)])
def test_the_variance_on_one_layer_is_that_of_the_formula(estimator: Any, ratio: int) -> None:
    # fan-in p = 20, fan-out q = 10, one example: (pq + 1) S and (q + 1) S, S the mean squared gradient
    layer = nn.Linear(20, 10, bias=False).double()
    images, labels = batch(1, 20, classes=10)
    true, draws, stream = exact(layer, images, labels)["weight"], [], generator(3)
    for _ in range(DRAWS):
        estimator(layer, images, labels, stream)
        draws.append(gradients(layer)["weight"])
    drawn, scale = torch.stack(draws), true.square().mean()
    errors = (drawn - true).square().mean((1, 2)) / scale
    deviation = float(errors.std()) / DRAWS**0.5
    assert float(errors.mean()) == pytest.approx(ratio, abs=4 * deviation) and deviation < 0.05 * ratio
    wrong = float((drawn.mean(0) - true).square().mean() / scale)
    assert wrong == pytest.approx(ratio / DRAWS, rel=0.5)  # the mean of n draws errs by 1 / n of one's variance


def small_network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)  # noqa: TID251
        return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 3)).double()


def test_the_slope_is_the_gradient_times_the_direction_and_batch_norm_counts_its_batch() -> None:
    network, (images, labels) = small_network(), batch(5, 1, 4, 4)
    tangents = {name: torch.randn(p.shape, generator=generator(4, name), dtype=p.dtype) for name, p in network.named_parameters()}
    loss, along = slope(network, images, labels, tangents)
    assert int(network.get_buffer("1.num_batches_tracked")) == 1 and network.get_buffer("1.running_mean").any()
    true = exact(network, images, labels)
    assert float(along) == pytest.approx(sum(float((true[name] * tangents[name]).sum()) for name in true), rel=1e-6)
    assert float(loss) == pytest.approx(float(functional.cross_entropy(network(images), labels).detach()))


def test_weights_perturbed_along_every_axis_sum_to_backpropagation() -> None:
    network, (images, labels) = small_network(), batch(5, 1, 4, 4)
    true, zeros = exact(network, images, labels), {name: torch.zeros_like(p) for name, p in network.named_parameters()}
    for name, tangent in zeros.items():
        for index in range(tangent.numel()):
            tangent.view(-1)[index] = 1
            _, along = slope(network, images, labels, zeros)
            assert float(along) == pytest.approx(float(true[name].view(-1)[index]), abs=1e-12)
            tangent.zero_()


def test_outputs_perturbed_at_every_row_of_an_lstm_are_right_in_the_mean() -> None:
    network = build_network(NetworkSpec(name="row-lstm", width=3), image_shape=(1, 4, 5), num_classes=3, seed=0).double()
    images, labels = batch(1, 1, 4, 5)
    true = exact(network, images, labels)
    perturb_outputs(network, images.expand(20_000, -1, -1, -1), labels.expand(20_000), generator(3))  # as many draws of one image
    drawn = gradients(network)
    error = torch.cat([(drawn[name] - true[name]).flatten() for name in true]).norm()
    size = torch.cat([value.flatten() for value in true.values()]).norm()
    # about one unit of variance per number perturbed: 4 rows of 2 * 12, and 3 classes
    assert 0.3 * (99 / 20_000) ** 0.5 < error / size < 3 * (99 / 20_000) ** 0.5


def mixer(blocks: int = 2, width: int = 6, groups: int = 2, dtype: torch.dtype = torch.float64) -> LocalMixer:
    with torch.random.fork_rng():
        torch.manual_seed(1)  # noqa: TID251
        network = local_mixer(image_shape=(1, 4, 5), num_classes=3, width=width, blocks=blocks, grid=2, groups=groups)
    assert isinstance(network, LocalMixer)
    network.local_heads = LocalHeads(network, generator(5))
    return network.to(dtype)


def test_noise_along_every_axis_of_all_activations_sums_to_backpropagation_of_the_local_losses() -> None:
    network, (images, labels) = mixer(), batch(2, 1, 4, 5)
    loss = backpropagate_locally(network, images, labels)
    true, sums = gradients(network), {}
    noise = [[torch.zeros_like(part) for part in three] for three in draw_noise(network, network.patches(images), generator(0))]
    parts = [part for three in noise for part in three]
    for part in parts:
        for position in range(part[0].numel()):
            part.flatten(1)[:, position] = 1
            assert float(perturb_locally(network, images, labels, noise)) == pytest.approx(float(loss))
            for name, value in gradients(network).items():
                sums[name] = sums.get(name, 0) + value
            part.zero_()
    count = sum(part[0].numel() for part in parts)
    for name, value in true.items():
        head = name.startswith(("head", "local_heads"))  # exact every time
        torch.testing.assert_close(sums[name] / count if head else sums[name], value, rtol=1e-9, atol=1e-13)
    assert set(true) == set(dict(network.named_parameters()))


def test_blocks_learn_from_their_own_losses_alone() -> None:
    network, (images, labels) = mixer(), batch(2, 1, 4, 5)
    backpropagate_locally(network, images, labels)
    local = gradients(network)
    first = network.blocks[0](network.patches(images))
    weight, bias = readouts(network)[0]
    functional.cross_entropy(functional.linear(first.mean(1), weight, bias), labels).backward()
    own = gradients(network)
    assert all(torch.equal(local[name], value) for name, value in own.items())
    assert any(name.startswith("blocks.0") for name in own) and not any(name.startswith("blocks.1") for name in own)


def test_the_efficient_tangent_is_that_of_the_graph_with_stopped_gradients() -> None:
    n, patches, groups, size, classes = 3, 4, 2, 5, 3
    outputs, tangent = torch.randn(2, n, patches, groups * size, generator=generator(6), dtype=torch.float64)
    weight = torch.randn(classes, groups * size, generator=generator(7), dtype=torch.float64)
    labels, mean = torch.tensor([0, 2, 1]), outputs.mean(1)
    slopes = (mean @ weight.T).softmax(1) - functional.one_hot(labels, classes)
    ours = local_tangents(tangent, slopes, weight, groups)
    for patch in range(patches):
        for group in range(groups):
            own = slice(group * size, (group + 1) * size)
            moving = outputs[:, patch, own].clone().requires_grad_()
            seen = torch.cat([mean[:, : own.start], mean[:, own] + (moving - moving.detach()) / patches, mean[:, own.stop :]], 1)
            functional.cross_entropy(seen @ weight.T, labels, reduction="sum").backward()
            assert moving.grad is not None
            expected = (moving.grad * tangent[:, patch, own]).sum(1)
            torch.testing.assert_close(ours[:, patch, group], expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize("layer", [1, 2])
def test_no_other_patch_and_group_hears_of_noise_behind_the_split(layer: int) -> None:
    network, (images, _) = mixer(blocks=1), batch(2, 1, 4, 5)
    patches = network.patches(images)
    (noise,) = draw_noise(network, patches, generator(0))
    still = [torch.zeros_like(part) for part in noise]
    still[layer][:, 1, 3:] = noise[layer][:, 1, 3:]  # patch 1, the second of two groups of three
    change = network.blocks[0].trace(patches, still)[0] - network.blocks[0](patches)  # type: ignore[operator]
    assert change[:, 1, 3:].any()
    change[:, 1, 3:] = 0
    assert not change.any()


def test_patches_are_cut_row_by_row_and_padded_at_the_end() -> None:
    image = torch.arange(1.0, 21.0).view(1, 1, 4, 5)
    assert mixer().patches(image)[0].tolist() == [
        [1, 2, 3, 6, 7, 8],
        [4, 5, 0, 9, 10, 0],
        [11, 12, 13, 16, 17, 18],
        [14, 15, 0, 19, 20, 0],
    ]


def test_the_size_for_cifar10_is_that_of_the_paper() -> None:
    network = local_mixer(image_shape=(3, 32, 32), num_classes=10, width=512, blocks=4, grid=8, groups=16)
    assert isinstance(network, LocalMixer)
    network.local_heads = LocalHeads(network, generator(0))
    assert sum(param.numel() for param in network.parameters()) == 917_800  # theirs 919K, norms not counted here


def test_every_weight_of_a_mixer_is_on_a_path_until_its_patches_are_cut_off() -> None:
    network = build(width=32)
    mask = masks.full(masks.prunable(network))
    assert effective_density(network, mask, (1, 8, 8)) == 1.0
    mask["blocks.0.tokens.weight"][:, 3] = False
    mask["blocks.0.channels.weight"][:, 2] = False
    alive = effective(network, mask, (1, 8, 8))
    assert all(keep[mask[name]].all() for name, keep in alive.items())
    mask["blocks.0.tokens.weight"][:] = False  # the first block has no way around
    assert not any(keep.any() for keep in effective(network, mask, (1, 8, 8)).values())


@pytest.mark.parametrize("criterion", sorted(set(CRITERIA) - set(LOOKING_AHEAD)))
def test_criteria_score_a_mixer(criterion: str) -> None:
    network, stream = build(width=32), generator(2)
    batches = [(torch.randn(8, 1, 8, 8, generator=stream), torch.randint(3, (8,), generator=stream)) for _ in range(2)]
    scores = CRITERIA[criterion].score(network, batches, generator(3), head=True, density=0.2)
    assert all(score.isfinite().all() for score in scores.values())
    assert {name: score.shape for name, score in scores.items()} == {name: p.shape for name, p in masks.prunable(network).items()}


@pytest.mark.parametrize(("width", "groups"), [(2, 1), (16, 1), (40, 2), (50, 2), (128, 8)])
def test_groups_divide_the_width(width: int, groups: int) -> None:
    network = build_network(NetworkSpec(name="local-mixer", width=width), image_shape=(1, 8, 8), num_classes=3, seed=0)
    assert network.get_submodule("blocks.0.grouped").groups == groups


def test_a_width_of_one_is_refused() -> None:
    with pytest.raises(SpecError, match="^network.width: 1 is not allowed; allowed: >= 2"):
        build_network(NetworkSpec(name="local-mixer", width=1), image_shape=(1, 8, 8), num_classes=3, seed=0)


def images() -> ImageSet:
    labels = torch.arange(120) % 3
    pixels = torch.randint(0, 100, (120, 1, 8, 8), generator=generator(8))
    pixels[torch.arange(120), 0, labels * 2] += 150
    return ImageSet(pixels.to(torch.uint8), labels)


def setup(network: nn.Module) -> Setup:
    return Setup(network=network, train=SPEC, density=None, head=True, image_shape=(1, 8, 8), steps_per_epoch=6, seed=0)


def build(name: str = "local-mixer", width: int | None = 32) -> nn.Module:
    return build_network(NetworkSpec(name=name, width=width), image_shape=(1, 8, 8), num_classes=3, seed=0)


def train(name: str, estimator: Any, *, masked: bool = False, **changes: Any) -> tuple[Trainer, list[Any]]:
    network = build(name, None if name == "lenet300-100" else 16)
    parts, reports = FWDGRAD.parts(setup(network), ForwardGradient(estimator=estimator)), []
    mask = {key: torch.arange(p.numel()).reshape(p.shape) % 3 > 0 for key, p in masks.prunable(network).items()} if masked else None
    data, spec = DataSpec(name="digits", mean=(0.3,), std=(0.25,)), replace(SPEC, **changes)
    one = Trainer(network, network, spec, data, JobSpec(), images(), images(), seed=1, mask=mask, parts=parts)
    fit(one, on_epoch=reports.append)
    return one, reports


@pytest.mark.parametrize(
    ("name", "estimator", "share"),
    [
        ("local-mixer", "lg_fg_a", 0.7),
        ("local-mixer", "lg_bp", 0.3),
        ("local-mixer", "fg_a", 0.95),
        ("resnet8", "backprop", 0.3),
    ],
)
def test_the_loss_falls(name: str, estimator: str, share: float) -> None:
    _, reports = train(name, estimator)
    assert reports[-1].loss < share * reports[0].loss


def test_with_local_losses_it_falls_faster_than_with_weights_perturbed() -> None:
    losses = [train("local-mixer", estimator, lr=0.01)[1][-1].loss for estimator in ("lg_fg_a", "fg_w")]
    assert losses[0] < losses[1] - 0.1


def test_weights_perturbed_train_a_linear_classifier() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    reports: list[Any] = []
    data = DataSpec(name="digits", mean=(0.3,), std=(0.25,))
    one = Trainer(network, network, replace(SPEC, lr=3e-4), data, JobSpec(), images(), images(), seed=1)
    one.parts = FWDGRAD.parts(setup(network), ForwardGradient(estimator="fg_w"))
    fit(one, on_epoch=reports.append)
    assert reports[-1].loss < 0.95 * reports[0].loss


def test_backprop_is_the_training_of_the_loop_itself() -> None:
    plain = build("resnet8", 16)
    data = DataSpec(name="digits", mean=(0.3,), std=(0.25,))
    fit(Trainer(plain, plain, replace(SPEC, epochs=1), data, JobSpec(), images(), images(), seed=1), on_epoch=lambda report: None)
    ours = train("resnet8", "backprop", epochs=1)[0].network.state_dict()
    assert all(torch.equal(value, ours[name]) for name, value in plain.state_dict().items())


def test_masked_weights_stay_zero_and_baking_takes_the_local_heads_away() -> None:
    one, _ = train("local-mixer", "lg_fg_a", masked=True, epochs=2)
    assert one.mask is not None and masks.violations(one.network, one.mask) == 0
    inputs = torch.randn(2, 1, 8, 8, generator=generator(9))
    before = one.network(inputs)
    (heads,) = one.parts.transforms
    heads.bake(one.network)
    assert list(one.network.state_dict()) == list(build().state_dict())
    assert torch.equal(one.network(inputs), before)


@pytest.mark.parametrize("estimator", ["lg_fg_a", "fg_a", "fg_w"])
def test_noise_is_that_of_the_generator(estimator: Any) -> None:
    network, (inputs, labels) = mixer(), batch(4, 1, 4, 5)
    source, found = Estimates(ForwardGradient(estimator=estimator)), []
    for seed in (3, 3, 4):
        torch.rand(seed)
        source.fill(network, inputs, labels, generator(seed))
        found.append(gradients(network))
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
    assert not torch.equal(found[0]["blocks.0.tokens.weight"], found[2]["blocks.0.tokens.weight"])
    assert set(found[0]) == set(dict(network.named_parameters()))


@pytest.mark.parametrize(
    ("name", "estimator", "allowed"),
    [
        ("resnet8", "lg_fg_a", "local-mixer for lg_fg_a"),
        ("row-lstm", "lg_bp", "local-mixer for lg_bp"),
        ("resnet8", "fg_a", "linear layers, LayerNorm and GroupNorm alone"),
        ("local-mixer", "lg_fg_a", None),
        ("row-lstm", "fg_a", None),
        ("resnet8", "fg_w", None),
    ],
)
def test_an_estimator_says_which_network_it_needs(name: str, estimator: Any, allowed: str | None) -> None:
    reason = FWDGRAD.refuses(setup(build(name, 4)), ForwardGradient(estimator=estimator))
    assert (reason is None) == (allowed is None)
    assert reason is None or (reason.startswith("network: '") and str(allowed) in reason and "\n" not in reason)


def test_an_unknown_estimator_is_named() -> None:
    with pytest.raises(SpecError, match="^fwdgrad.estimator: 'fa' is not allowed; allowed: lg_fg_a | ") as caught:
        parse("fwdgrad(estimator=fa)")
    assert "\n" not in str(caught.value)
    assert parse("fwdgrad") == ("fwdgrad", (ForwardGradient(),))
