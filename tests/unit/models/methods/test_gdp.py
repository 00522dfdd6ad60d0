"""Polarized gates: closed forms, the threshold of survival, bilinear multiply-adds, trainings."""

import math

import pytest
import torch

from autosparse.models.errors import SpecError
from autosparse.models.methods.gate_bank import FreeLogits
from autosparse.models.methods.gdp import Polarized, shrink_
from autosparse.models.methods.registry import parse
from autosparse.models.networks.flops import forward_macs
from autosparse.models.training.loop import fit
from tests.gated_networks import SHAPE, network, trainer


def test_gate_and_gradient_are_the_closed_forms() -> None:
    x = torch.tensor([-1.0, -0.05, 0.0, 0.01, 0.1, 2.0], dtype=torch.float64, requires_grad=True)
    squash = Polarized(0.01).double()
    gates = squash.gates(x, None)
    eps = float(squash.eps)
    assert gates.tolist() == pytest.approx([v * v / (v * v + eps) for v in x.tolist()], abs=1e-15)
    gates.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == pytest.approx([2 * v * eps / (v * v + eps) ** 2 for v in x.tolist()], abs=1e-13)


def test_the_steepest_place_is_the_root_of_a_third_of_eps() -> None:
    x = torch.linspace(0.001, 0.5, 5000, dtype=torch.float64, requires_grad=True)
    Polarized(0.01).double().gates(x, None).sum().backward()
    assert x.grad is not None
    assert float(x.detach()[x.grad.argmax()]) == pytest.approx(math.sqrt(0.01 / 3), abs=1e-3)


def test_a_gate_survives_exactly_when_its_benefit_is_above_the_threshold() -> None:
    l1, eps = 0.02, 0.01
    threshold = 8 * l1 * math.sqrt(eps) / (3 * math.sqrt(3))
    benefit = threshold * torch.tensor([0.5, 0.95, 1.05, 2.0], dtype=torch.float64)
    squash, x = Polarized(eps).double(), torch.ones(4, dtype=torch.float64, requires_grad=True)
    for _ in range(4000):
        (slope,) = torch.autograd.grad((-benefit * squash.gates(x, None)).sum(), x)
        with torch.no_grad():
            x -= 0.5 * slope
        shrink_(x, 0.5 * l1)
    assert x[:2].tolist() == [0, 0]
    assert x[2:].tolist() == pytest.approx([0.0738, 0.1386], abs=1e-4)
    assert float(x.detach()[2]) > math.sqrt(eps / 3)


def test_the_proximal_step_by_hand() -> None:
    x = torch.tensor([0.5, -0.5, 0.1, -0.1, 0.0])
    shrink_(x, 0.2)
    assert x.tolist() == pytest.approx([0.3, -0.3, 0, 0, 0])


def test_tied_convolutions_have_one_gate_and_the_others_their_own() -> None:
    one = trainer("gdp()")
    source = one.parts.transforms[0].bank.source  # type: ignore[attr-defined]
    assert isinstance(source, FreeLogits)
    assert len(source.logits) == 4 + 4 + 8 + 8 + 16 + 16
    with torch.no_grad():
        source.logits[1] = 0  # a channel of the first residual stream
    one.parts.transforms[0].bake(one.network)
    for norm in ("stem.1", "stages.0.0.norm2"):
        assert one.network.get_submodule(norm).weight.ne(0).tolist() == [True, False, True, True]  # type: ignore[union-attr]
    assert one.network.get_submodule("stages.0.0.norm1").weight.ne(0).all()  # type: ignore[union-attr]


def test_multiply_adds_are_bilinear_in_neighbouring_gates() -> None:
    one = trainer("gdp(eps_start=1)", kind="vgg")
    with torch.no_grad():
        for param, values in zip(one.parts.own[0].param_groups[0]["params"], [torch.linspace(0.1, 3, 18)], strict=True):
            param.copy_(values)
    g = [v * v / (v * v + 1) for v in torch.linspace(0.1, 3, 18).tolist()]
    a, b, c = sum(g[:6]), sum(g[6:11]), sum(g[11:])
    macs = list(forward_macs(network("vgg"), SHAPE).values())
    assert macs == [64 * 9 * 6, 16 * 9 * 6 * 5, 20 * 7, 21]
    expected = 64 * 9 * a + 16 * 9 * a * b + 4 * b * c + 3 * c
    assert one.parts.report()["gated_flops"] == pytest.approx(expected / sum(macs), rel=1e-5)
    assert one.parts.report()["flops"] == 1


@pytest.mark.parametrize("settings", ["penalty=30", "penalty=0,l1=.2", "target=.2,dual_lr=100"])
def test_a_training_costs_less(settings: str) -> None:
    one, seen = trainer(f"gdp({settings},gate_lr=1,eps_start=1)"), []
    fit(one, on_epoch=lambda report: seen.append(report.facts))
    assert seen[-1]["gated_flops"] < 0.95  # without price and threshold it ends above 0.99
    assert seen[-1]["eps"] == pytest.approx(1e-3)  # the end of the annealing
    assert ("multiplier" in seen[-1]) == ("target" in settings)
    assert seen[-1]["density"] <= 1


def test_without_price_and_threshold_no_gate_closes() -> None:
    one = trainer("gdp(penalty=0,l1=0,gate_lr=1,eps_start=1)")
    fit(one, on_epoch=lambda report: None)
    assert one.parts.report()["closed_gates"] == 0
    assert one.parts.report()["gated_flops"] > 0.99


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gdp(eps_start=.001,eps_end=.01)", "gdp.eps_end: 0.01 is not allowed; allowed: <= eps_start, 0.001"),
        ("gdp(target=0)", "gdp.target: 0.0 is not allowed; allowed: > 0 and <= 1"),
        ("gdp(l1=-1)", "gdp.l1: -1.0 is not allowed; allowed: >= 0"),
    ],
)
def test_bad_settings_are_one_line(text: str, message: str) -> None:
    with pytest.raises(SpecError) as error:
        parse(text)
    assert str(error.value) == message
