"""NTK-SAP: slopes of the response on paper, in closed form and by finite differences in float64; what it must not depend on."""

import copy

import pytest
import torch
from torch import Tensor, nn

from autosparse.models import seeding
from autosparse.models.criteria.registry import CRITERIA
from autosparse.models.criteria.tangent_kernel import response_slopes
from autosparse.models.errors import SpecError
from autosparse.models.masks.allocation import keep_count
from autosparse.models.masks.mask import Scores, full, prunable


def smooth_network() -> nn.Sequential:
    with seeding.scoped(4, "test"):
        network = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2)).double()
        network[1].weight.data.uniform_(0.5, 2)
    return network


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_slopes_of_one_weight_on_paper():
    # f = m (w + z) x: R = (m z x)^2, so dR/dm = 2 m z^2 x^2 = 2 * 1 * 9 * 4, whatever w is
    slopes = response_slopes(
        nn.Linear(1, 1, bias=False).double(),
        {"weight": torch.tensor([[True]])},
        {"weight": torch.tensor([[7.0]]).double()},
        {"weight": torch.tensor([[3.0]]).double()},
        torch.tensor([[2.0]]).double(),
    )
    assert slopes["weight"].tolist() == [[72.0]]


def test_slopes_of_a_linear_chain_in_closed_form():
    network = nn.Sequential(nn.Linear(3, 4, bias=False), nn.Linear(4, 2, bias=False)).double()
    mask = {"0.weight": normal(4, 3, seed=1) > -0.5, "1.weight": normal(2, 4, seed=2) > -0.5}
    weights = {"0.weight": normal(4, 3, seed=3), "1.weight": normal(2, 4, seed=4)}
    noise = {"0.weight": 0.1 * normal(4, 3, seed=5), "1.weight": 0.1 * normal(2, 4, seed=6)}
    inputs = normal(6, 3, seed=7)
    slopes = response_slopes(network, mask, weights, noise, inputs)
    # D = V U - V' U' with masked factors, R = tr(D C D^T), C = x^T x: dR = 2 tr(dD C D^T)
    u, v = (weights[name] * mask[name] for name in weights)
    u2, v2 = ((weights[name] + noise[name]) * mask[name] for name in weights)
    pull = 2 * (v @ u - v2 @ u2) @ (inputs.T @ inputs)
    first = v.T @ pull * weights["0.weight"] - v2.T @ pull * (weights["0.weight"] + noise["0.weight"])
    second = pull @ u.T * weights["1.weight"] - pull @ u2.T * (weights["1.weight"] + noise["1.weight"])
    torch.testing.assert_close(slopes["0.weight"], first, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(slopes["1.weight"], second, rtol=1e-10, atol=1e-12)


def response(network: nn.Sequential, gates: dict[str, Tensor], weights: dict[str, Tensor], noise: dict[str, Tensor], inputs: Tensor):
    """R with BatchNorm by hand, its statistics those of the unperturbed weights without any gate moved."""
    names = list(weights)
    eps, (scale, shift) = network[1].eps, (param.detach() for param in network[1].parameters())
    biases = [network[index].bias.detach() for index in (0, 3, 5)]
    still = inputs @ weights[names[0]].T + biases[0]

    def outputs(values: dict[str, Tensor]) -> Tensor:
        first = inputs @ (values[names[0]] * gates[names[0]]).T + biases[0]
        normed = (first - still.mean(0)) / (still.var(0, unbiased=True) + eps).sqrt() * scale + shift
        second = torch.tanh(torch.tanh(normed) @ (values[names[1]] * gates[names[1]]).T + biases[1])
        return second @ (values[names[2]] * gates[names[2]]).T + biases[2]

    moved = {name: weights[name] + noise[name] for name in names}
    return float((outputs(weights) - outputs(moved)).square().sum())


def test_slopes_through_batchnorm_against_finite_differences():
    network = smooth_network()
    params = prunable(network)
    weights = {name: normal(*param.shape, seed=index) for index, (name, param) in enumerate(params.items())}
    noise = {name: 0.05 * normal(*param.shape, seed=10 + index) for index, (name, param) in enumerate(params.items())}
    inputs = normal(8, 3, seed=20)
    network[1].momentum = 1.0
    slopes = response_slopes(network.eval(), full(params), weights, noise, inputs)
    step = 1e-5
    for name, param in params.items():
        for position in (0, param.numel() // 2, param.numel() - 1):
            ends = []
            for sign in (1, -1):
                gates = {other: torch.ones_like(value) for other, value in weights.items()}
                gates[name].view(-1)[position] += sign * step
                ends.append(response(network, gates, weights, noise, inputs))
            assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(float(slopes[name].view(-1)[position]), rel=1e-5, abs=1e-9)


def scores_of(network: nn.Module, images: Tensor, *, seed: int = 0, head: bool = True) -> Scores:
    batches = [(images, torch.zeros(len(images), dtype=torch.long))]
    return CRITERIA["ntk_sap"].score(network, batches, seeding.generator(seed), head=head, density=0.2)


def same(first: Scores, second: Scores) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


def test_it_reads_shapes_of_images_and_spreads_of_layers_alone():
    network = smooth_network()
    expected = scores_of(network, normal(8, 3))
    assert same(expected, scores_of(network, 5 + normal(8, 3, seed=1)))
    flipped = copy.deepcopy(network)
    with torch.no_grad():
        for param in prunable(flipped).values():
            param.neg_()
    assert same(expected, scores_of(flipped, normal(8, 3)))
    assert not same(expected, scores_of(network, normal(8, 3), seed=1))
    with torch.no_grad():
        network[0].weight.mul_(3)
    assert not same(expected, scores_of(network, normal(8, 3)))


def test_running_statistics_of_the_network_do_not_count():
    network = smooth_network()
    expected = scores_of(network, normal(8, 3))
    network[1].running_mean.fill_(3)
    network[1].running_var.fill_(9)
    assert same(expected, scores_of(network, normal(8, 3)))


def test_every_iteration_sees_other_weights_noise_and_inputs(monkeypatch: pytest.MonkeyPatch):
    seen = []

    def spy(runner, mask, weights, noise, inputs):
        seen.append(
            (weights["0.weight"].clone(), noise["0.weight"].clone(), inputs.clone(), sum(int(keep.sum()) for keep in mask.values()))
        )
        return response_slopes(runner, mask, weights, noise, inputs)

    monkeypatch.setattr("autosparse.models.criteria.tangent_kernel.response_slopes", spy)
    network = smooth_network()
    scores_of(network, normal(8, 3))
    assert [kept for *_, kept in seen] == [43 if not index else keep_count(0.2 ** (index / 20), 43) for index in range(20)]
    for column in range(3):
        assert len({tuple(draw[column].flatten().tolist()) for draw in seen}) == 20
    root_mean_square = network[0].weight.detach().square().mean().sqrt()
    assert float(torch.stack([draw[0] for draw in seen]).std()) == pytest.approx(float(root_mean_square), rel=0.15)
    assert float(torch.stack([draw[1] for draw in seen]).std()) == pytest.approx(0.01, rel=0.15)


def test_a_head_left_out_is_drawn_anew_but_neither_masked_nor_moved(monkeypatch: pytest.MonkeyPatch):
    seen = []

    def spy(runner, mask, weights, noise, inputs):
        seen.append((set(mask), set(weights), set(noise)))
        return response_slopes(runner, mask, weights, noise, inputs)

    monkeypatch.setattr("autosparse.models.criteria.tangent_kernel.response_slopes", spy)
    scores_of(smooth_network(), normal(8, 3), head=False)
    assert seen[0] == ({"0.weight", "3.weight"}, {"0.weight", "3.weight", "5.weight"}, {"0.weight", "3.weight"})


def test_no_batch_is_refused():
    with pytest.raises(SpecError, match="batches: 0 is not allowed; allowed: >= 1"):
        CRITERIA["ntk_sap"].score(smooth_network(), [], seeding.generator(0), density=0.2)
