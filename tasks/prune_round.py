"""The task of one IRP round: one Ray Train job that trains, scores and cuts."""

from typing import Any

from prefect import task

from autosparse.models.arms.plan import ticket_densities
from autosparse.models.schedules import density_before
from autosparse.models.specs.experiment import ExperimentSpec
from autosparse.models.specs.run_specs import NetworkSpec
from autosparse.storage import paths
from autosparse.storage.paths import RunPaths
from autosparse.tasks.engine.run import Run
from autosparse.tasks.engine.step import TASK, Report, Step, run_step
from autosparse.tasks.report.plots import layer_density_plot
from autosparse.tasks.results.measured import final
from autosparse.tasks.worker.irp_round import RoundInputs, run_round


def round_title(run: Run, index: int) -> str:
    """`round 3, density 0.41`: what the round trains at."""
    irp = run.spec.irp
    return f"round {index}, density {density_before(index, irp.rounds, irp.final_density):.3g}"


@task(**TASK)
def prune_round(run: Run, network: NetworkSpec, seed: int, index: int, title: str) -> Report:
    """Round `index` of a source network and seed; its report has density and accuracy of the network trained in it."""
    irp, key = run.spec.irp, run.paths.round(network.label, seed, index)

    def work(step: Step) -> Report:
        report = step.train(run_round, run.config(round_inputs(run.spec, run.paths, network, seed, index)), irp.job)
        _track(step, report)
        return report

    parameters = {"source": network.label, "seed": seed, "round": index, "density": density_before(index, irp.rounds, irp.final_density)}
    return run_step(run, key, f"{network.label} seed {seed} {title}", work, parameters=parameters)


def round_inputs(spec: ExperimentSpec, run: RunPaths, network: NetworkSpec, seed: int, index: int) -> RoundInputs:
    """What the job of a round is told."""
    return RoundInputs(
        irp=spec.irp,
        network=network,
        data=spec.data,
        seed=seed,
        index=index,
        source=run.source(network.label, seed),
        step=run.round(network.label, seed, index),
        step_before=run.round(network.label, seed, index - 1) if index else None,
        ticket_densities=ticket_densities(spec),
    )


def _track(step: Step, report: dict[str, Any]) -> None:
    tracker = step.run.tracker
    densities = {name: report[name] for name in ("density", "density_after")}
    tracker.metrics(step.mlflow_run, densities | final(report))
    tracker.file(step.mlflow_run, "mask.safetensors", step.run.store.read(paths.mask(step.key)))
    picture = layer_density_plot(report["layer_densities"], report["density_after"], step.title)
    tracker.file(step.mlflow_run, "layer_densities.png", picture)
