"""Mean gradients and Hessian products: values on paper, and no trace left in the network."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from autosparse.models import seeding
from autosparse.models.errors import SpecError
from autosparse.models.gradients import mean_gradients, mean_hessian_products
from autosparse.models.masks.mask import prunable


def squared_error(outputs: Tensor, labels: Tensor) -> Tensor:
    return ((outputs.squeeze(1) - labels) ** 2).mean()


def slope_of_two() -> nn.Linear:
    line = nn.Linear(1, 1, bias=False)
    nn.init.constant_(line.weight, 2.0)
    return line


# y = 2x against 0: dL/dw = mean(2 * 2x * x) is 4 and (4 + 36) / 2 = 20; d2L/dw2 = mean(2x * x) is 2 and (2 + 18) / 2 = 10
BATCHES = [(torch.tensor([[1.0]]), torch.zeros(1)), (torch.tensor([[1.0], [3.0]]), torch.zeros(2))]


def test_the_mean_is_over_batches_each_counting_once():
    line = slope_of_two()
    gradients = mean_gradients(line, BATCHES, prunable(line), loss=squared_error)
    assert {name: gradient.tolist() for name, gradient in gradients.items()} == {"weight": [[12.0]]}


def test_hessian_products_on_paper():
    line = slope_of_two()
    products = mean_hessian_products(line, BATCHES, prunable(line), {"weight": torch.tensor([[3.0]])}, loss=squared_error)
    assert products["weight"].tolist() == [[3 * (2 + 10) / 2]]


def network_with_everything() -> nn.Sequential:
    with seeding.scoped(0, "test"):
        return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(12, 2))


def image_batches(count: int) -> list[tuple[Tensor, Tensor]]:
    stream = torch.Generator().manual_seed(3)
    return [(torch.randn(5, 1, 4, 4, generator=stream), torch.randint(0, 2, (5,), generator=stream)) for _ in range(count)]


def test_batchnorm_uses_the_statistics_of_the_batch():
    network, (batch,) = network_with_everything().eval(), image_batches(1)
    expected = copy.deepcopy(network)
    expected[1].train()
    cross_entropy(expected(batch[0]), batch[1]).backward()
    gradients = mean_gradients(network, [batch], prunable(network))
    for name, param in prunable(expected).items():
        assert param.grad is not None and torch.equal(gradients[name], param.grad)


@pytest.mark.parametrize("derivative", ["gradients", "products"])
def test_the_network_is_left_as_it_was(derivative: str):
    network = network_with_everything().train()
    network[1].eval()
    network[0].weight.requires_grad_(False)
    network[5].bias.grad = torch.ones(2)
    params, before = prunable(network), copy.deepcopy(network.state_dict())
    if derivative == "gradients":
        mean_gradients(network, image_batches(2), params)
    else:
        mean_hessian_products(network, image_batches(2), params, {name: param.detach() for name, param in params.items()})
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert [module.training for module in network] == [True, False, True, True, True, True]
    assert {name: param.requires_grad for name, param in network.named_parameters() if not param.requires_grad} == {"0.weight": False}
    assert {name for name, param in network.named_parameters() if param.grad is not None} == {"5.bias"}
    assert network[5].bias.grad.tolist() == [1.0, 1.0]


def test_modes_are_put_back_after_an_error():
    network = network_with_everything().train()
    with pytest.raises(RuntimeError):
        mean_gradients(network, [(torch.randn(2, 7, 4, 4), torch.zeros(2, dtype=torch.long))], prunable(network))
    assert all(module.training for module in network.modules())


def test_dropout_draws_nothing():
    network, batches = network_with_everything().train(), image_batches(2)
    state = torch.random.get_rng_state()
    first = mean_gradients(network, batches, prunable(network))
    assert torch.equal(torch.random.get_rng_state(), state)
    with seeding.scoped(1, "elsewhere"):
        second = mean_gradients(network, batches, prunable(network))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_frozen_parameter_and_one_without_influence_have_gradients():
    network = nn.ModuleDict({"used": nn.Linear(2, 2), "unused": nn.Linear(3, 1)})
    network.forward = lambda images: network["used"](images)
    network["used"].weight.requires_grad_(False)
    gradients = mean_gradients(network, [(torch.ones(1, 2), torch.zeros(1, dtype=torch.long))], prunable(network))
    assert gradients["used.weight"].count_nonzero() == 4
    assert gradients["unused.weight"].tolist() == [[0.0, 0.0, 0.0]]


def test_gradients_are_taken_inside_no_grad_too():
    line = slope_of_two()
    with torch.no_grad():
        assert mean_gradients(line, BATCHES, prunable(line), loss=squared_error)["weight"].item() == 12.0


def test_no_batch_is_refused():
    line = slope_of_two()
    with pytest.raises(SpecError, match="batches: 0 is not allowed; allowed: >= 1"):
        mean_gradients(line, [], prunable(line))
