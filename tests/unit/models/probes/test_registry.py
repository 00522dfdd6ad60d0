"""Every probe on registered networks: what must hold whatever it measures."""

import copy
import json
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from autosparse.models import seeding
from autosparse.models.errors import SpecError
from autosparse.models.networks.build import build_network
from autosparse.models.probes.contract import Record
from autosparse.models.probes.curve import CurveSettings
from autosparse.models.probes.diffusion import NoiseSettings
from autosparse.models.probes.hessian import HessianSettings
from autosparse.models.probes.plane import PlaneSettings
from autosparse.models.probes.registry import PROBES, run_probe
from autosparse.models.probes.vectors import NormSettings
from autosparse.models.specs.run_specs import NetworkSpec, Spec

NETWORKS = {
    "lenet300-100": (NetworkSpec(name="lenet300-100"), (1, 8, 8)),
    "resnet8": (NetworkSpec(name="resnet8", width=4), (3, 12, 12)),
    "vgg11": (NetworkSpec(name="vgg11", width=4), (3, 32, 32)),
}
QUICK: dict[str, Spec] = {
    "norms": NormSettings(),
    "curve": CurveSettings(steps=3, points=3),
    "plane": PlaneSettings(size=2, curve=CurveSettings(steps=2)),
    "hessian": HessianSettings(k=2, iterations=4),
    "noise": NoiseSettings(k=2, iterations=4, chunk=3),
}


def pair(name: str) -> tuple[dict[str, nn.Module], list[tuple[Tensor, Tensor]]]:
    spec, shape = NETWORKS[name]
    stream = seeding.generator(1, "batches")
    batches = [
        (torch.randn(size, *shape, generator=stream).to(memory_format=torch.channels_last), torch.randint(10, (size,), generator=stream))
        for size in (8, 6)  # even: PyTorch 2.13 crashes in the backward pass of 4-channel convolutions on an odd batch and two threads
    ]
    roles = {
        role: build_network(spec, image_shape=shape, num_classes=10, seed=seed).to(memory_format=torch.channels_last)
        for seed, role in enumerate(("network", "other"))
    }
    return roles, batches


def numbers(value: Any) -> list[float]:
    return [number for item in value for number in numbers(item)] if isinstance(value, list) else [value]


def test_all_are_tried():
    assert set(QUICK) == set(PROBES)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("probe", PROBES)
def test_a_record_is_plain_and_the_networks_are_untouched(probe: str, network: str):
    networks, batches = pair(network)
    networks["network"].train()
    before = {role: copy.deepcopy(one.state_dict()) for role, one in networks.items()}
    modes = [module.training for one in networks.values() for module in one.modules()]
    state = torch.random.get_rng_state()

    def measured() -> Record:
        return run_probe(probe, networks, batches, seeding.generator(0, probe), QUICK[probe])

    record = measured()
    assert json.loads(json.dumps(record)) == record == measured()
    assert all(math.isfinite(number) and isinstance(number, float | int) for value in record.values() for number in numbers(value))
    for role, one in networks.items():
        assert all(torch.equal(value, before[role][key]) for key, value in one.state_dict().items())
        assert all(param.grad is None and param.requires_grad for param in one.parameters())
    assert [module.training for one in networks.values() for module in one.modules()] == modes
    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_memory_format_changes_rounding_alone():
    networks, batches = pair("resnet8")
    plain = {role: copy.deepcopy(one).to(memory_format=torch.contiguous_format) for role, one in networks.items()}
    settings = HessianSettings(k=1, iterations=10)
    first = run_probe("hessian", networks, batches, seeding.generator(0), settings)
    rows = [(images.contiguous(), labels) for images, labels in batches]
    second = run_probe("hessian", plain, rows, seeding.generator(0), settings)
    assert first["eigenvalues"] == pytest.approx(second["eigenvalues"], rel=1e-3)
    assert first["distance"] == second["distance"]


def test_norms_of_both():
    first, second = nn.Linear(2, 1, bias=False), nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        first.weight.copy_(torch.tensor([[3.0, -4.0]]))
        second.weight.copy_(torch.tensor([[0.0, 2.0]]))
    record = run_probe("norms", {"network": first, "other": second}, [], seeding.generator(0))
    assert record == {"norm_ratio": 5 / 7, "norm_ratio_other": 1.0}
    assert run_probe("norms", {"network": first}, [], seeding.generator(0)) == {"norm_ratio": 5 / 7}


@pytest.mark.parametrize(
    ("probe", "roles", "settings", "said"),
    [
        ("curv", ("network",), None, "probe: 'curv' is not known; did you mean 'curve'?"),
        ("curve", ("network",), None, "curve.networks: no 'other'; allowed: networks for network, other"),
        ("noise", (), None, "noise.networks: no 'network'"),
        ("noise", ("network",), HessianSettings(), "noise.settings: 'HessianSettings' is not allowed; allowed: NoiseSettings"),
        ("hessian", ("network",), HessianSettings(k=10**6), "k: 1000000 is not allowed"),
    ],
)
def test_bad_input_is_one_line(probe: str, roles: tuple[str, ...], settings: Spec | None, said: str):
    networks, batches = pair("lenet300-100")
    with pytest.raises(SpecError) as caught:
        run_probe(probe, {role: networks[role] for role in roles}, batches, seeding.generator(0), settings)
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("probe", sorted(set(PROBES) - {"norms"}))
def test_no_batch_is_refused(probe: str):
    networks, _ = pair("lenet300-100")
    with pytest.raises(SpecError, match="batches: 0 is not allowed"):
        run_probe(probe, networks, [], seeding.generator(0), QUICK[probe])
