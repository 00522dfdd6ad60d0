"""BatchNorm statistics taken anew: by hand, and nothing else touched."""

import copy

import pytest
import torch
from torch import Tensor, nn

from autosparse.models import seeding
from autosparse.models.errors import SpecError
from autosparse.models.probes.batchnorm import reestimated

LABELS = torch.zeros(0)


def norm_of(values: list[list[float]]) -> list[tuple[Tensor, Tensor]]:
    """Batches of one-number images."""
    return [(torch.tensor(batch)[:, None], LABELS) for batch in values]


def test_one_batch_gives_its_own_mean_and_unbiased_variance():
    fresh = reestimated(nn.BatchNorm1d(1), norm_of([[1.0, 2.0, 6.0]]))
    assert fresh["running_mean"].tolist() == [3.0]
    assert fresh["running_var"].tolist() == [7.0]  # (4 + 1 + 9) / 2
    assert fresh["num_batches_tracked"].item() == 1


def test_batches_count_by_their_images():
    # means 3 and 5, variances 7 and 8; the second batch enters with momentum 2/5
    fresh = reestimated(nn.BatchNorm1d(1), norm_of([[1.0, 2.0, 6.0], [3.0, 7.0]]))
    assert fresh["running_mean"].item() == pytest.approx(3.8, rel=1e-6)  # the mean of all five
    assert fresh["running_var"].item() == pytest.approx((3 * 7 + 2 * 8) / 5, rel=1e-6)


def network_with_everything() -> nn.Sequential:
    with seeding.scoped(0, "test"):
        return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(12, 2)).train()


def images(*sizes: int) -> list[tuple[Tensor, Tensor]]:
    stream = torch.Generator().manual_seed(3)
    return [(torch.randn(size, 1, 4, 4, generator=stream), torch.zeros(size, dtype=torch.long)) for size in sizes]


def test_a_convolution_under_other_weights_by_hand():
    network, batches = network_with_everything(), images(6)
    weights = {name: 2 * param.detach() for name, param in network.named_parameters()}
    reached = 2 * network[0](batches[0][0]).detach()
    fresh = reestimated(network, batches, weights)
    assert torch.allclose(fresh["1.running_mean"], reached.mean((0, 2, 3)), atol=1e-6)
    assert torch.allclose(fresh["1.running_var"], reached.transpose(0, 1).reshape(3, -1).var(1), rtol=1e-5)


def test_batches_of_a_split_have_the_mean_of_the_whole():
    network, (whole,) = network_with_everything(), images(10)
    split = [(whole[0][:3], whole[1][:3]), (whole[0][3:], whole[1][3:])]
    assert torch.allclose(reestimated(network, split)["1.running_mean"], reestimated(network, [whole])["1.running_mean"], atol=1e-6)


@pytest.mark.parametrize("momentum", [0.1, None])
def test_the_network_is_left_as_it_was(momentum: float | None):
    network = network_with_everything()
    network[1].momentum = momentum
    network[1].eval()
    before, state = copy.deepcopy(network.state_dict()), torch.random.get_rng_state()
    reestimated(network, images(4, 3))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert [module.training for module in network] == [True, False, True, True, True, True]
    assert network[1].momentum == momentum
    assert torch.equal(torch.random.get_rng_state(), state)


def test_only_statistics_of_batchnorm_are_taken_anew():
    network, batches = network_with_everything(), images(4, 3)
    before, fresh = network.state_dict(), reestimated(network, batches)
    changed = {name for name, value in fresh.items() if not torch.equal(value, before[name])}
    assert changed == {"1.running_mean", "1.running_var", "1.num_batches_tracked"} == set(fresh)


def test_statistics_that_went_wrong_are_forgotten():
    norm = nn.BatchNorm1d(1)
    assert norm.running_mean is not None
    norm.running_mean.fill_(float("nan"))
    assert reestimated(norm, norm_of([[1.0, 3.0]]))["running_mean"].tolist() == [2.0]


def test_a_network_without_batchnorm_runs_nothing_and_needs_no_batch():
    class Refuses(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            raise AssertionError("ran")

    assert reestimated(Refuses(1, 1), []) == {}
    assert reestimated(Refuses(1, 1), norm_of([[1.0]])) == {}


@pytest.mark.parametrize(("batches", "said"), [([], "batches: 0 is not allowed"), ([[1.0, 2.0], [3.0]], "a batch of 1")])
def test_too_few_images_are_refused(batches: list[list[float]], said: str):
    with pytest.raises(SpecError, match=said):
        reestimated(nn.BatchNorm1d(1), norm_of(batches))
