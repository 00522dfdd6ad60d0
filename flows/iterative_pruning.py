"""Subflow: the IRP of one source network and seed, one Ray Train job per round."""

from typing import Any

from prefect import flow
from prefect.states import Completed

from autosparse.models.specs.run_specs import NetworkSpec
from autosparse.tasks.engine.progress_artifact import ProgressArtifact
from autosparse.tasks.engine.run import Run
from autosparse.tasks.engine.step import table_artifact
from autosparse.tasks.planning.artifact import show_plan
from autosparse.tasks.prune_round import prune_round, round_title
from autosparse.tasks.results.measured import metric_of, value_of
from autosparse.tasks.results.said import said


@flow(name="iterative-pruning", flow_run_name="IRP {title}", validate_parameters=False)
def iterative_pruning(run: Run, network: NetworkSpec, seed: int, title: str) -> Any:
    """Train, cut, rewind for each round; the reports of all rounds."""
    artifact = ProgressArtifact(f"{run.name}-irp-{network.label}-seed{seed}", f"IRP {title}")
    reports = []
    for index in range(run.spec.irp.rounds):
        reports.append(prune_round.submit(run, network, seed, index, round_title(run, index)).result())
        if index == 0:
            show_plan(run)  # its own reports say how long a training takes
        artifact.update((index + 1) / run.spec.irp.rounds)
    columns = ("round", "density", "kept", "seconds")
    rows = [{metric_of(report).name: value_of(report)} | {name: report[name] for name in columns} for report in reports]
    table_artifact(f"{run.name}-irp-{network.label}-seed{seed}-rounds", rows, f"IRP {title}")
    return Completed(message=f"{len(reports)} rounds, the last: {said(reports[-1])}", data=reports)
