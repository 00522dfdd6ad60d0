"""Repair on paper: which weights go, which come, and that the count stays."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from autosparse.models import seeding
from autosparse.models.errors import SpecError
from autosparse.models.masks import mask as masks
from autosparse.models.masks.allocation import global_topk
from autosparse.models.masks.gates import effective, effective_density
from autosparse.models.masks.mask import Mask, Scores
from autosparse.models.masks.repair import repair
from autosparse.models.networks.build import build_network
from autosparse.models.specs.run_specs import NetworkSpec

T, F = True, False


def chain(*sizes: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs, bias=False), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def equal(mask: Mask, other: Mask) -> bool:
    return all(torch.equal(keep, other[name]) for name, keep in mask.items())


SCORES = {"0.weight": torch.tensor([[9.0, 8.0], [1.0, 2.0], [7.0, 3.0]]), "2.weight": torch.tensor([[6.0, 5.0, 4.0]])}


def test_half_of_the_dead_give_their_places_to_the_best_on_a_path() -> None:
    # 9 and 6 are the path; 7 has no output, 5 no input. Half of the dead gives way: 5 goes, 8 comes. 7 alone could only be
    # exchanged for a weight that connects by itself, and there is none left.
    mask = {"0.weight": torch.tensor([[T, F], [F, F], [T, F]]), "2.weight": torch.tensor([[T, T, F]])}
    found, record = repair(chain(2, 3, 1), mask, SCORES, (2,))
    assert found["0.weight"].tolist() == [[T, T], [F, F], [T, F]] and found["2.weight"].tolist() == [[T, F, F]]
    assert (record.replaced, record.dead, record.layers) == (1, (2, 1), {"0.weight": 1, "2.weight": -1})


def test_enough_candidates_leave_nothing_dead() -> None:
    scores = {"0.weight": torch.tensor([[9.0, 8.0, 1.0], [7.0, 2.0, 3.0]]), "2.weight": torch.tensor([[6.0, 0.5]])}
    mask = {"0.weight": torch.tensor([[T, F, F], [T, F, F]]), "2.weight": torch.tensor([[T, F]])}
    found, record = repair(chain(3, 2, 1), mask, scores, (3,))  # 7 goes, 8 comes
    assert found["0.weight"].tolist() == [[T, T, F], [F, F, F]] and found["2.weight"].tolist() == [[T, F]]
    assert (record.rounds, record.replaced, record.dead) == (1, 1, (1, 0))
    assert record.layers == {"0.weight": 0, "2.weight": 0}


def test_a_whole_mask_comes_back_as_it_is() -> None:
    mask = {"0.weight": torch.tensor([[T, F], [F, F], [F, F]]), "2.weight": torch.tensor([[T, F, F]])}
    found, record = repair(chain(2, 3, 1), mask, SCORES, (2,))
    assert equal(found, mask)
    assert record == (0, 0, (0, 0), {"0.weight": 0, "2.weight": 0})


def test_a_collapsed_layer_gets_its_best_weight_that_fits_the_others() -> None:
    scores = {
        "0.weight": torch.tensor([[9.0], [1.0]]),
        "2.weight": torch.tensor([[1.0, 9.0], [2.0, 3.0]]),
        "4.weight": torch.tensor([[0.0, 5.0]]),
    }
    mask = {"0.weight": torch.tensor([[T], [F]]), "2.weight": torch.zeros(2, 2).bool(), "4.weight": torch.tensor([[T, T]])}
    found, record = repair(chain(1, 2, 2, 1), mask, scores, (1,))
    # layer by layer: 9, of those that it feeds 2, of that one's outputs 5
    assert found["0.weight"].tolist() == [[T], [F]]
    assert found["2.weight"].tolist() == [[F, F], [T, F]]
    assert found["4.weight"].tolist() == [[F, T]]
    assert record.dead == (3, 0) and record.layers == {"0.weight": 0, "2.weight": 1, "4.weight": -1}


def test_a_floor_brings_dead_weights_to_life_and_costs_the_worst_of_another_layer() -> None:
    scores = {"0.weight": torch.tensor([[9.0], [8.0]]), "2.weight": torch.tensor([[6.0, 5.0], [4.0, 3.0]])}
    mask = {"0.weight": torch.tensor([[T], [F]]), "2.weight": torch.tensor([[T, T], [T, F]])}
    found, record = repair(chain(1, 2, 2), mask, scores, (1,), floor=2)  # 8 feeds the dead 5, so 4 has to go
    assert found["0.weight"].tolist() == [[T], [T]] and found["2.weight"].tolist() == [[T, T], [F, F]]
    assert (record.replaced, record.dead, record.layers) == (1, (1, 0), {"0.weight": 1, "2.weight": -1})


def test_floors_that_do_not_fit_are_refused() -> None:
    mask = {"0.weight": torch.tensor([[T, F], [F, F], [F, F]]), "2.weight": torch.tensor([[T, F, F]])}
    with pytest.raises(SpecError, match="floor: 2 is not allowed; allowed: floors that fit into the 2 weights"):
        repair(chain(2, 3, 1), mask, SCORES, (2,), floor=2)


def scored(name: str, seed: int, **fields: int) -> tuple[nn.Module, Scores]:
    network = build_network(NetworkSpec(name=name, **fields), image_shape=(3, 16, 16), num_classes=10, seed=seed)
    stream = seeding.generator(seed, "test")
    return network, {layer: torch.rand(param.shape, generator=stream) for layer, param in masks.prunable(network).items()}


@pytest.mark.parametrize("density", [0.002, 0.01, 0.05])
@pytest.mark.parametrize(("name", "width"), [("resnet8", 8), ("vgg11", 8), ("resnet20", 8)])
def test_random_masks_of_real_networks_are_mended_at_their_count(name: str, width: int, density: float) -> None:
    network, scores = scored(name, 1, width=width)
    mask = global_topk(scores, density)
    found, record = repair(network, mask, scores, (3, 16, 16))
    alive = effective(network, found, (3, 16, 16))
    assert masks.kept(found) == masks.kept(mask)
    assert record.dead[0] > 0 and record.dead[1] <= record.dead[0] // (10 if density == 0.002 else 100)
    assert masks.collapsed_layers(alive) == []
    assert record.dead == (masks.kept(mask) - masks.kept(effective(network, mask, (3, 16, 16))), masks.kept(found) - masks.kept(alive))
    assert sum(record.layers.values()) == 0


def test_a_cut_residual_branch_is_opened_again() -> None:
    network, scores = scored("resnet8", 2, width=4)
    mask = global_topk(scores, 0.3)
    for layer in ("conv1", "conv2", "shortcut.0"):
        mask[f"stages.1.0.{layer}.weight"] = torch.zeros_like(mask[f"stages.1.0.{layer}.weight"])
    assert effective_density(network, mask, (3, 16, 16)) == 0.0
    found, record = repair(network, mask, scores, (3, 16, 16), floor=3)
    assert record.dead[1] == 0
    assert all(record.layers[f"stages.1.0.{layer}.weight"] >= 3 for layer in ("conv1", "conv2", "shortcut.0"))
    assert masks.kept(found) == masks.kept(mask)
