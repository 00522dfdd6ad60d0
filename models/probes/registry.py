"""Name -> probe: the only door to them. A new probe is one function and one line here."""

from collections.abc import Mapping

import torch
from torch import nn

from autosparse.models.errors import SpecError, not_allowed, unknown_name
from autosparse.models.gradients import Batches
from autosparse.models.probes.contract import NETWORK, OTHER, THIRD, Probe, Record
from autosparse.models.probes.curve import CurveSettings, curve
from autosparse.models.probes.diffusion import NoiseSettings, noise
from autosparse.models.probes.hessian import HessianSettings, hessian
from autosparse.models.probes.plane import PlaneSettings, plane
from autosparse.models.probes.vectors import NormSettings, norms
from autosparse.models.specs.run_specs import Spec

PAIR = frozenset({NETWORK, OTHER})

PROBES: dict[str, Probe] = {
    "norms": Probe(norms, NormSettings, uses=frozenset({OTHER})),
    "curve": Probe(curve, CurveSettings, needs=PAIR),
    "plane": Probe(plane, PlaneSettings, needs=PAIR, uses=frozenset({THIRD})),
    "hessian": Probe(hessian, HessianSettings, uses=frozenset({OTHER})),
    "noise": Probe(noise, NoiseSettings),
}


def run_probe(
    name: str, networks: Mapping[str, nn.Module], batches: Batches, generator: torch.Generator, settings: Spec | None = None
) -> Record:
    """The record of the probe called `name`, with its default settings where None are given.

    `networks` may hold more roles than the probe looks at. Raises SpecError for an unknown probe, a role that is missing,
    settings of another probe and whatever else the probe refuses; DivergedError for a loss that is NaN or infinite.
    """
    if name not in PROBES:
        raise unknown_name("probe", name, PROBES)
    probe = PROBES[name]
    if missing := sorted(probe.needs - set(networks)):
        raise SpecError(f"{name}.networks: no {missing[0]!r}; allowed: networks for {', '.join(sorted(probe.needs))}")
    if settings is not None and not isinstance(settings, probe.settings):
        raise not_allowed(f"{name}.settings", type(settings).__name__, probe.settings.__name__)
    return probe.run(networks, batches, generator, probe.settings() if settings is None else settings)
