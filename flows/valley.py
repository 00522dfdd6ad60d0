"""Subflow: what lies between the minima of two arms, for every pair that is asked for; and the same on a run that is there."""

from prefect import flow
from prefect.futures import wait

from autosparse.tasks.compare_arms import compare_arms
from autosparse.tasks.engine.run import Run, reopen_run
from autosparse.tasks.engine.step import Report
from autosparse.tasks.results.comparisons import Comparison


@flow(name="valley", flow_run_name="valley {title}", validate_parameters=False)
def valley(run: Run, pairs: list[Comparison], title: str) -> list[Report]:
    """The reports of all comparisons, in the order of `pairs`."""
    futures = [compare_arms.submit(run, pair, pair.title) for pair in pairs]
    with run.interruptible():
        wait(futures)
        return [future.result() for future in futures]


@flow(name="autosparse-valley", flow_run_name="valley of {name}", validate_parameters=False)
def valley_of_run(name: str, pairs: list[Comparison]) -> list[Report]:
    """Compare arms of the finished run called `name`; what is there already shows as Cached."""
    with reopen_run(name) as run, run.interruptible():
        return valley(run, pairs, name)
