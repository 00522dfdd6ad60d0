"""All probes over two trained networks of one architecture: the bend and the spectra are found once and shared.

Curve and plane run from the first network (t = 0, the origin) to the second (t = 1, on the x axis).
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from autosparse.models.errors import AutosparseError
from autosparse.models.gradients import Batches
from autosparse.models.probes.contract import NETWORK, OTHER, Record
from autosparse.models.probes.curve import CurveSettings, curve_record, train_bend
from autosparse.models.probes.diffusion import NoiseSettings, noise_record
from autosparse.models.probes.hessian import HessianOperator, Spectrum, lanczos, spectrum_record
from autosparse.models.probes.plane import grid_lines, plane_through, survey
from autosparse.models.probes.registry import PROBES, run_probe
from autosparse.models.probes.surface import Surface
from autosparse.models.probes.vectors import check_same_shapes, displacement, flatten
from autosparse.models.specs.fanout import ValleySpec

Stream = Callable[[str], torch.Generator]  # a name -> the generator of that name
FIRST, SECOND = "first", "second"


class Pair:
    """Two networks and the batches they are measured on: `batches` of all images, `curvature` of fewer for what takes derivatives.

    `train_batch_size` is that of the training whose noise is asked for. Raises SpecError when the networks differ in a parameter.
    """

    def __init__(
        self,
        first: nn.Module,
        second: nn.Module,
        *,
        batches: Batches,
        curvature: Batches,
        settings: ValleySpec,
        train_batch_size: int,
        stream: Stream,
    ) -> None:
        check_same_shapes(first, second)
        self._networks = {FIRST: first, SECOND: second}
        self._batches, self._curvature, self._settings, self._stream = batches, curvature, settings, stream
        self._noise = NoiseSettings(k=settings.k, iterations=settings.iterations, batch_size=train_batch_size)
        self._surface = Surface(first, batches)
        self._ends = flatten(first), flatten(second)
        self._bend: Tensor | None = None
        self._spectra: dict[str, Spectrum] = {}

    def probe(self, name: str) -> dict[str, Any]:
        """The record of one probe; of one that looks at a single network, a record of each. Raises SpecError, DivergedError."""
        own: dict[str, Callable[[], dict[str, Any]]] = {"curve": self._curve, "plane": self._plane}
        each: dict[str, Callable[[str], Record]] = {"hessian": self._hessian, "noise": self._alignment}
        if name in own:
            return own[name]()
        if name in each:
            return {side: each[name](side) for side in self._networks}
        if PROBES[name].needs == {NETWORK}:
            return {side: self._run(name, {NETWORK: network}) for side, network in self._networks.items()}
        return self._run(name, {NETWORK: self._networks[SECOND], OTHER: self._networks[FIRST]})

    def _run(self, name: str, networks: dict[str, nn.Module]) -> Record:
        return run_probe(name, networks, self._batches, self._stream(name))

    def _curve(self) -> dict[str, Any]:
        start, end = self._ends
        return curve_record(self._surface.measure, start, self._trained_bend(), end, self._settings.points)

    def _plane(self) -> dict[str, Any]:
        through = plane_through(*self._ends, self._trained_bend())
        return survey(self._surface.measure, through, *grid_lines(through, size=self._settings.size, margin=self._settings.margin))

    def _hessian(self, side: str) -> Record:
        moved = displacement(self._networks[SECOND], self._networks[FIRST])
        return spectrum_record(self._spectrum(side), moved)

    def _alignment(self, side: str) -> Record:
        return noise_record(self._networks[side], self._curvature, self._spectrum(side), self._noise)

    def _trained_bend(self) -> Tensor:
        if self._bend is None:
            chosen = self._settings
            settings = CurveSettings(steps=chosen.steps, lr=chosen.lr, momentum=chosen.momentum, points=chosen.points)
            self._bend = train_bend(self._surface.training_loss(), *self._ends, self._stream("curve"), settings)
        return self._bend

    def _spectrum(self, side: str) -> Spectrum:
        if side not in self._spectra:
            operator = HessianOperator(self._networks[side], self._curvature)
            self._spectra[side] = lanczos(operator, self._settings.k, self._stream("hessian"), iterations=self._settings.iterations)
        return self._spectra[side]


def measure(pair: Pair, names: tuple[str, ...], tell: Callable[[str], None] = lambda name: None) -> tuple[dict[str, Any], dict[str, str]]:
    """The records of the probes by name, and what those said that could not measure this pair; `tell` hears of each that begins."""
    records, failed = {}, {}
    for name in names or tuple(PROBES):
        tell(name)
        try:
            records[name] = pair.probe(name)
        except AutosparseError as error:
            failed[name] = str(error)
    return records, failed
