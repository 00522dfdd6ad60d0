"""What a probe is asked for a plan, and the rates in its answer."""

from collections.abc import Mapping
from typing import Any

from autosparse.models.specs.experiment import ExperimentSpec
from autosparse.models.specs.run_specs import DataSpec, JobSpec, NetworkSpec, TrainSpec
from autosparse.tasks.checks.preflight import networks_of
from autosparse.tasks.planning.costs import TORCH_S, Examples, Pace, Rates
from autosparse.tasks.worker.pace import PaceInputs, Probed

Training = tuple[str, NetworkSpec, DataSpec, TrainSpec, JobSpec]


def trainings_of(spec: ExperimentSpec) -> list[Training]:
    """The trainings of a run that differ in a step: field, network, data, how and where; those of the sources first."""
    found: dict[Pace, Training] = {}
    for field, network, data in networks_of(spec):
        part = spec.irp if field.startswith("irp.") else spec.fanout
        found.setdefault(Pace.of(network, data, part.train, part.job), (field, network, data, part.train, part.job))
    return list(found.values())


def probed(spec: ExperimentSpec, *, quick: bool = False) -> PaceInputs:
    """What `paces` is to try."""
    trainings = tuple(
        Probed(
            field=field,
            network=network,
            data=data,
            batch_size=max(1, train.batch_size // job.workers),
            threads=job.cpus_per_worker,
            gpu=job.gpus_per_worker > 0,
        )
        for field, network, data, train, job in trainings_of(spec)
    )
    return PaceInputs(trainings=trainings, scorer=spec.scorer if spec.irp.seeds else None, quick=quick)


def rates_of(spec: ExperimentSpec, measured: Mapping[str, Any]) -> Rates:
    """The rates in an answer of `paces` to `probed(spec)`."""
    start_s = measured["start_seconds"]
    rates = Rates(row=measured["row_seconds"], slowness=max(1.0, start_s / TORCH_S) if start_s else None)
    for (_, network, data, train, job), record in zip(trainings_of(spec), measured["trainings"], strict=True):
        rates.steps[Pace.of(network, data, train, job)] = record["step_seconds"]
        rates.passes[network.label] = record["pass_seconds"]
        rates.examples[data] = Examples(record["train"], record["test"])
    return rates
