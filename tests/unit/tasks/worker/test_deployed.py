"""What a network costs where it is used: numbers by hand, and nothing about the network or its randomness that changes."""

import torch
from torch import nn

from autosparse.tasks.worker.deployed import BATCHES, MOST, deployed


def small(bias: float = 0.0) -> nn.Sequential:
    """Two channels of 3 x 3 on one image channel, of 4 x 4; the second channel is cut off from the image and answers `bias`."""
    network = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.Conv2d(2, 3, 3, padding=1), nn.Flatten(), nn.Linear(48, 5))
    with torch.no_grad():
        for param in network.parameters():
            param.fill_(0.5)
        network[0].get_parameter("weight")[1] = 0
        network[0].get_parameter("bias")[1] = bias
    return network


def test_a_channel_that_is_cut_off_costs_nothing() -> None:
    found = deployed(small(), (1, 4, 4))
    assert found["nonzeros"] == 9 + 27 + 240  # the 27 weights that read the dead channel are gone with it
    assert found["parameters"] == (9 + 1) + (27 + 3) + (240 + 5)
    assert found["multiply_adds"] == 16 * 9 + 16 * 27 + 240
    assert found["bytes"]["dense"] == found["bytes"]["best"] == 2 * found["parameters"]
    assert "reason" not in found
    assert set(found["latency_ms"]) == {str(batch) for batch in BATCHES}
    assert all(1 <= one["n"] <= MOST and one["median"] > 0 for one in found["latency_ms"].values())


def test_what_cannot_be_made_smaller_is_deployed_whole_and_says_why() -> None:
    found = deployed(small(bias=1.0), (1, 4, 4))  # at the border of the image the constant is another one than in its middle
    assert found["parameters"] == (18 + 2) + (54 + 3) + (240 + 5)
    assert found["nonzeros"] == 9 + 54 + 240
    assert found["bytes"]["bitmap"] == (3 + 18 + 4) + (7 + 108 + 6) + (30 + 480 + 10)
    assert "a constant that no bias can take up" in found["reason"]


def test_a_dense_network_is_itself_and_a_rewrite_counts_for_itself() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 4), nn.ReLU(), nn.Linear(4, 2))
    assert deployed(network, (1, 4, 4))["multiply_adds"] == 64 + 8
    assert deployed(network, (1, 4, 4), {"1.weight": 7.5})["multiply_adds"] == 7.5 + 8


def test_the_latency_of_the_dense_network_stands_beside_it() -> None:
    wide = nn.Sequential(nn.Flatten(), nn.Linear(16, 4000), nn.ReLU(), nn.Linear(4000, 2))
    found = deployed(nn.Sequential(nn.Flatten(), nn.Linear(16, 2)), (1, 4, 4), dense=wide)["latency_ms"]
    assert all(one["dense"] > one["median"] for one in found.values())


def test_the_network_the_threads_and_all_that_is_random_stay_as_they_are() -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten(), nn.Linear(16, 3)).train()
    with torch.no_grad():
        network[0].get_parameter("weight")[1] = 0
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    deployed(network, (1, 4, 4))
    assert torch.equal(torch.get_rng_state(), state) and torch.get_num_threads() == threads
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert all(module.training for module in network.modules()) and all(param.grad is None for param in network.parameters())
