"""Networks as vectors: order, the way back, and norms in double precision."""

import pytest
import torch
from torch import nn

from autosparse.models import seeding
from autosparse.models.errors import SpecError
from autosparse.models.probes.vectors import check_same_shapes, displacement, flatten, norm_ratio, unflatten


def small() -> nn.Sequential:
    with seeding.scoped(0, "test"):
        return nn.Sequential(nn.Conv2d(2, 3, 2), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(3, 2))


def test_the_vector_holds_every_parameter_in_order():
    line = nn.Linear(2, 2)
    with torch.no_grad():
        line.weight.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        line.bias.copy_(torch.tensor([5.0, 6.0]))
    assert flatten(line).tolist() == [1, 2, 3, 4, 5, 6]
    assert flatten(small()).shape == (2 * 3 * 4 + 3 + 3 + 3 + 3 * 2 + 2,)


def test_the_memory_format_of_a_weight_does_not_matter():
    network = small()
    plain = flatten(network)
    assert torch.equal(flatten(network.to(memory_format=torch.channels_last)), plain)
    assert all(torch.equal(value, network.get_parameter(name)) for name, value in unflatten(plain, network).items())


def test_flatten_copies():
    network = small()
    flatten(network).zero_()
    assert flatten(network).count_nonzero() > 0


def test_the_way_back_carries_gradients_and_takes_the_weights_precision():
    network = small()
    vector = flatten(network).double().requires_grad_()
    parts = unflatten(vector, network)
    assert {part.dtype for part in parts.values()} == {torch.float32}
    (3 * parts["3.bias"]).sum().backward()
    assert vector.grad is not None and vector.grad.tolist() == [0.0] * (len(vector) - 2) + [3.0, 3.0]


def test_a_vector_of_another_length_is_refused():
    with pytest.raises(SpecError, match=r"vector: \(40,\) is not allowed; allowed: the shape \(41,\)"):
        unflatten(torch.zeros(40), small())


def test_displacement_is_taken_in_double_precision():
    first, second = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    nn.init.constant_(first.weight, 1.0)
    nn.init.constant_(second.weight, -(2.0**-30))
    assert displacement(first, second).tolist() == [1.0 + 2.0**-30]


@pytest.mark.parametrize(
    ("other", "found"), [(nn.Linear(2, 3), r"weight \(2, 2\) and \(3, 2\)"), (nn.Linear(2, 2, bias=False), r"bias \(2,\) and missing")]
)
def test_networks_that_differ_are_named(other: nn.Module, found: str):
    with pytest.raises(SpecError, match=found) as caught:
        check_same_shapes(nn.Linear(2, 2), other)
    assert "\n" not in str(caught.value)


def test_norm_ratio_on_paper():
    assert norm_ratio(torch.tensor([3.0, -4.0, 0.0])) == 5 / 7
    assert norm_ratio(torch.tensor([0.0, -2.0])) == 1.0


def test_norm_ratio_counts_beyond_what_single_precision_can():
    count = 2**25 + 1
    ones = torch.ones(1).expand(count)
    assert float(torch.tensor(count).float()) != count
    assert norm_ratio(ones) == count**0.5 / count


def test_norm_ratio_of_small_and_large_numbers():
    # squares of 1e-30 are zero in single precision
    assert norm_ratio(torch.full((4,), 1e-30)) == pytest.approx(0.5, rel=1e-12)
    assert norm_ratio(torch.full((4,), 1e30)) == pytest.approx(0.5, rel=1e-12)


def test_norm_ratio_of_zeros_is_refused():
    with pytest.raises(SpecError, match="at least one weight that is not zero"):
        norm_ratio(torch.zeros(3))
