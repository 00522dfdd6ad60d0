"""Multiply-adds of networks small enough to count on paper."""

import pytest
import torch
from torch import nn

from autosparse.models.networks.flops import forward_macs, macs, training_macs, weight_name


def small() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),  # 8 x 8 x 4 outputs of 3 * 3 * 3 products: 6912
        nn.BatchNorm2d(4),
        nn.Conv2d(4, 4, 3, stride=2, padding=1, groups=2, bias=False),  # 4 x 4 x 4 outputs of 2 * 3 * 3 products: 1152
        nn.Flatten(),
        nn.Linear(64, 10),  # 640
    )


def test_counts_on_paper() -> None:
    assert forward_macs(small(), (3, 8, 8)) == {"0.weight": 6912, "2.weight": 1152, "4.weight": 640}


def test_a_layer_used_twice_counts_twice() -> None:
    layer = nn.Linear(5, 5)
    assert forward_macs(nn.Sequential(nn.Flatten(), layer, layer), (5, 1, 1)) == {"1.weight": 50}


def test_the_network_stays_as_it_was() -> None:
    network = small().train()
    network[1].eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    forward_macs(network, (3, 8, 8))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert network.training and network[0].training and not network[1].training
    assert not any(module._forward_hooks for module in network.modules())


def test_training_is_three_forward_passes_and_density_scales_each_layer() -> None:
    macs = {"a": 100, "b": 10, "head": 1}
    assert training_macs(macs) == 333
    assert training_macs(macs, {"a": 0.1, "b": 0.5}) == pytest.approx(3 * (10 + 5 + 1))


def test_transposes_attention_and_recurrent_layers() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up = nn.ConvTranspose2d(2, 6, 3, groups=2)
            self.attention = nn.MultiheadAttention(6, 2, kdim=4, vdim=5, batch_first=True)
            self.packed = nn.MultiheadAttention(6, 2, batch_first=True)
            self.rnn = nn.LSTM(6, 4, batch_first=True, bidirectional=True)
            self.cell = nn.GRUCell(8, 3)

        def forward(self, x: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
            rows = self.up(x).flatten(2).transpose(1, 2)  # 5 x 5 places
            rows = self.attention(rows, key=key, value=value)[0]
            rows = self.packed(rows, rows, rows)[0]
            return self.cell(self.rnn(rows)[0][:, 0])

    found = macs(Net(), (torch.zeros(1, 2, 3, 3), torch.zeros(1, 7, 4), torch.zeros(1, 7, 5)))
    assert found == {
        "up.weight": 2 * 9 * 3 * 9,  # each of 2 x 9 inputs into 3 channels of its group, 9 places
        "attention.q_proj_weight": 25 * 36,
        "attention.k_proj_weight": 7 * 24,
        "attention.v_proj_weight": 7 * 30,
        "attention.out_proj.weight": 25 * 36,
        "packed.in_proj_weight": 25 * 108,
        "packed.out_proj.weight": 25 * 36,
        **{f"rnn.weight_ih_l0{way}": 25 * 16 * 6 for way in ("", "_reverse")},
        **{f"rnn.weight_hh_l0{way}": 25 * 16 * 4 for way in ("", "_reverse")},
        "cell.weight_ih": 9 * 8,
        "cell.weight_hh": 9 * 3,
    }


def test_a_weight_that_is_made_of_others_counts_under_its_own_name() -> None:
    layer = torch.nn.utils.parametrizations.weight_norm(nn.Linear(4, 3))
    assert macs(nn.Sequential(layer), torch.zeros(2, 4)) == {"0.weight": 24}
    assert weight_name("0.parametrizations.weight.original1") == weight_name("0.weight_v") == weight_name("0.weight_orig") == "0.weight"
    assert weight_name("rnn.weight_hh_l0") == "rnn.weight_hh_l0"
