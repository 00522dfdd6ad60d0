"""Every control changes what it says, and nothing else."""

from collections import Counter

import pytest
import torch
from torch import Tensor

from autosparse.models.arms.controls import CONTROLS, invert, random_labels, random_pixels, reinit_seed, rescale, shuffle
from autosparse.models.criteria.registry import CRITERIA
from autosparse.models.masks import mask as masks
from autosparse.models.masks.allocation import erk_topk, global_topk
from autosparse.models.masks.mask import Mask
from autosparse.models.networks.build import build_network
from autosparse.models.seeding import generator
from autosparse.models.specs.run_specs import NetworkSpec

Batch = tuple[Tensor, Tensor]


def some_mask() -> Mask:
    stream = generator(0, "test")
    return {
        "a": torch.rand(8, 4, 3, 3, generator=stream) < 0.1,
        "b": torch.rand(30, 8, generator=stream) < 0.5,
        "c": torch.zeros(3, 3).bool(),
    }


def some_batches() -> list[Batch]:
    """Two batches of images that are not noise (a ramp), far from mean 0 and std 1, and of different lengths."""
    ramp = torch.arange(16.0).view(1, 1, 4, 4)
    channels = torch.tensor([1.0, -2.0, 5.0]).view(1, 3, 1, 1)
    batches = []
    for size in (200, 56):
        images = (ramp * channels + torch.arange(float(size)).view(-1, 1, 1, 1) / size).contiguous(memory_format=torch.channels_last)
        batches.append((images, torch.arange(size) % 7))
    return batches


def test_the_registry() -> None:
    changes = {name: [field for field, change in control._asdict().items() if change] for name, control in CONTROLS.items()}
    assert changes == {
        "shuffle": ["mask"],
        "reinit": ["init_seed"],
        "rescale": ["weights"],
        "invert": ["scores"],
        "random_labels": ["batches"],
        "random_pixels": ["batches"],
    }


def test_shuffle_moves_the_entries_of_every_layer_and_keeps_its_count() -> None:
    mask = some_mask()
    before = masks.checksum(mask)
    shuffled = shuffle(mask, generator(1, "shuffle"))
    assert masks.layer_densities(shuffled) == masks.layer_densities(mask)
    assert {name: keep.shape for name, keep in shuffled.items()} == {name: keep.shape for name, keep in mask.items()}
    assert not torch.equal(shuffled["a"], mask["a"]) and not torch.equal(shuffled["b"], mask["b"])
    assert masks.checksum(mask) == before
    assert masks.checksum(shuffle(mask, generator(1, "shuffle"))) == masks.checksum(shuffled)
    assert masks.checksum(shuffle(mask, generator(2, "shuffle"))) != masks.checksum(shuffled)


def test_shuffle_is_the_random_mask_of_its_layer_densities() -> None:
    """Of 4 places with 2 kept each of the 6 masks is drawn as often as any other, whichever one was shuffled."""
    stream = generator(3, "shuffle")
    for start in ([True, True, False, False], [False, True, False, True]):
        drawn = Counter(tuple(shuffle({"a": torch.tensor(start)}, stream)["a"].tolist()) for _ in range(3000))
        assert len(drawn) == 6
        assert all(abs(count - 500) < 100 for count in drawn.values())  # std 20


@pytest.mark.parametrize("name", ["resnet8", "lenet300-100", "vgg11"])
def test_reinit_changes_every_prunable_weight_and_nothing_that_is_not_drawn(name: str) -> None:
    spec = NetworkSpec(name=name, width=None if name == "lenet300-100" else 4)
    network, other = (build_network(spec, image_shape=(1, 8, 8), num_classes=3, seed=seed) for seed in (7, reinit_seed(7)))
    drawn = masks.prunable(network)
    for (layer, tensor), changed in zip(network.state_dict().items(), other.state_dict().values(), strict=True):
        if layer in drawn:
            assert (tensor != changed).all()
            assert float(tensor.std()) == pytest.approx(float(changed.std()), rel=0.5)
        else:
            assert torch.equal(tensor, changed)


def test_reinit_seeds_differ_from_each_other_and_from_all_seeds_of_specs() -> None:
    seeds = [reinit_seed(seed) for seed in range(100)]
    assert len(set(seeds)) == 100 and min(seeds) >= 2**31
    assert CONTROLS["reinit"].mask is None  # so the mask is the method's, bit for bit


def test_rescale_gives_what_is_kept_the_size_of_its_layer_and_changes_nothing_else() -> None:
    network = build_network(NetworkSpec(name="resnet8", width=4), image_shape=(3, 8, 8), num_classes=3, seed=7)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    drawn = masks.prunable(network)
    mask = {
        name: weight.detach().abs() <= weight.detach().abs().flatten().kthvalue(max(1, weight.numel() // 5)).values
        for name, weight in drawn.items()
    }
    empty, head = next(iter(mask)), list(mask)[-1]
    mask[empty] = torch.zeros_like(mask[empty])
    del mask[head]
    rescale(network, mask)
    after = network.state_dict()
    for name, tensor in before.items():
        keep = mask.get(name)
        if keep is None or name == empty:
            assert torch.equal(after[name], tensor)
            continue
        assert float(after[name][keep].square().mean()) == pytest.approx(float(tensor.square().mean()), rel=1e-5)
        factors = after[name][keep] / tensor[keep]
        assert float(factors.min()) == pytest.approx(float(factors.max()), rel=1e-5) and float(factors.min()) > 2
        assert torch.equal(after[name][~keep], tensor[~keep])


def test_rescale_leaves_zeros_alone() -> None:
    network = torch.nn.Sequential(torch.nn.Linear(2, 2, bias=False))
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([[0.0, 3.0], [0.0, 4.0]]))
    rescale(network, {"0.weight": torch.tensor([[True, False], [True, False]])})
    assert network[0].weight.tolist() == [[0.0, 3.0], [0.0, 4.0]]


@pytest.mark.parametrize("allocate", [global_topk, erk_topk])
def test_invert_keeps_the_worst_and_as_many(allocate) -> None:
    scores = {"a": torch.tensor([[1.0, 2.0], [3.0, 4.0]]), "b": torch.tensor([[5.0, 6.0], [7.0, 8.0]])}
    before = {name: score.clone() for name, score in scores.items()}
    best, worst = allocate(scores, 0.5), allocate(invert(scores), 0.5)
    assert masks.kept(best) == masks.kept(worst) == 4
    expected = {global_topk: ([T, T, T, T], [F, F, F, F]), erk_topk: ([T, T, F, F], [T, T, F, F])}[allocate]
    assert (worst["a"].flatten().tolist(), worst["b"].flatten().tolist()) == expected
    assert all(torch.equal(scores[name], before[name]) for name in scores)


T, F = True, False


def test_invert_is_disjoint_from_the_method_below_half() -> None:
    scores = {"a": torch.rand(10, 10, generator=generator(0, "test"))}
    assert masks.overlap(global_topk(invert(scores), 0.3), global_topk(scores, 0.3)) == 0.0


def test_random_labels_permute_the_labels_and_leave_the_images_bit_for_bit() -> None:
    batches = some_batches()
    found = random_labels(batches, generator(0, "labels"))
    assert [len(labels) for _, labels in found] == [200, 56]
    assert all(images is before for (images, _), (before, _) in zip(found, batches, strict=True))
    labels, before = (torch.cat([part for _, part in some]) for some in (found, batches))
    assert labels.bincount().tolist() == before.bincount().tolist()
    assert float((labels != before).float().mean()) > 0.75  # 6/7 is expected
    assert torch.equal(batches[0][1], torch.arange(200) % 7)


def test_random_labels_cross_batches() -> None:
    batches = [(torch.zeros(50, 1), torch.full((50,), label)) for label in (0, 1)]
    assert all(0 < int(labels.sum()) < 50 for _, labels in random_labels(batches, generator(0, "labels")))


def test_random_pixels_are_noise_of_the_same_mean_and_std_and_leave_the_labels() -> None:
    batches = some_batches()
    before = [images.clone() for images, _ in batches]
    for (images, labels), (old, old_labels), kept in zip(random_pixels(batches, generator(0, "pixels")), batches, before, strict=True):
        assert labels is old_labels and torch.equal(old, kept)
        assert images.shape == old.shape and images.dtype == old.dtype and images.is_contiguous(memory_format=torch.channels_last)
        for channel in range(3):
            noise, real = images[:, channel], old[:, channel]
            spread = float(real.std())
            assert float(noise.mean()) == pytest.approx(float(real.mean()), abs=0.15 * spread)  # 896 values or more: 4.5 standard errors
            assert float(noise.std()) == pytest.approx(spread, rel=0.11)
            rows = noise.reshape(len(noise), -1)
            assert abs(float(torch.corrcoef(rows.T)[0, 5])) < 0.5 < float(torch.corrcoef(real.reshape(len(real), -1).T)[0, 5])


def test_constant_channels_stay_constant() -> None:
    [(images, _)] = random_pixels([(torch.full((4, 1, 2, 2), 3.0), torch.zeros(4))], generator(0, "pixels"))
    assert torch.equal(images, torch.full((4, 1, 2, 2), 3.0))


@pytest.mark.parametrize("name", ["random_labels", "random_pixels"])
def test_scores_notice_corrupted_data_where_they_use_data(name: str) -> None:
    network = build_network(NetworkSpec(name="resnet8", width=4), image_shape=(3, 4, 4), num_classes=7, seed=0)
    change = CONTROLS[name].batches
    assert change

    def overlap(method: str) -> float:
        cuts = []
        for batches in (some_batches(), change(some_batches(), generator(0, name))):
            scores = CRITERIA[method].score(network, batches, generator(0, "criterion"), density=0.1)
            cuts.append(CRITERIA[method].allocate(scores, 0.1))
        return masks.overlap(*cuts)

    assert overlap("snip") < 1
    assert overlap("magnitude") == overlap("synflow") == 1
