"""A plain copy has weights where the network makes them, and leaves the network alone."""

import pytest
import torch
from torch import nn
from torch.nn.utils import prune, spectral_norm, weight_norm
from torch.nn.utils.parametrizations import weight_norm as new_weight_norm

from autosparse.models.channels.plain import plain_copy

KINDS = {
    "weight_norm": (weight_norm, "0.weight_v"),
    "weight_norm of torch.nn.utils.parametrizations": (new_weight_norm, "0.parametrizations.weight.original1"),
    "spectral_norm": (spectral_norm, "0.weight_orig"),
    "torch.nn.utils.prune": (lambda layer: prune.l1_unstructured(layer, "weight", amount=0.5), "0.weight_orig"),
}


@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated:FutureWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_reparametrized_weights_become_weights(kind: str) -> None:
    change, name = KINDS[kind]
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)).eval()
    change(net[0])
    image = torch.randn(2, 3)
    wanted, names = net(image), set(net.state_dict())
    copy, renamed = plain_copy(net)
    assert renamed == {name: "0.weight"}
    assert set(copy.state_dict()) == {"0.weight", "0.bias", "1.weight", "1.bias"} and type(copy[0]) is nn.Linear
    assert torch.equal(copy(image), wanted)
    assert set(net.state_dict()) == names and torch.equal(net(image), wanted)
    plain_copy(net)  # and once more


def test_wrappers_are_looked_through() -> None:
    net = nn.Linear(2, 2)
    copy, renamed = plain_copy(nn.DataParallel(net))
    assert type(copy) is nn.Linear and copy is not net and not renamed
