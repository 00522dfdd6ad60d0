"""The task that turns arm reports into the results table and the accuracy-density plot."""

import json

from prefect import task
from prefect.artifacts import create_image_artifact, create_markdown_artifact

from autosparse.tasks.engine.run import Run, log
from autosparse.tasks.engine.step import TASK, Report, Step, artifact_key, run_step, table_artifact
from autosparse.tasks.report.frontier_plot import frontier_plot
from autosparse.tasks.report.notes import run_note
from autosparse.tasks.report.page import report_page
from autosparse.tasks.report.plots import accuracy_density_plot
from autosparse.tasks.report.result_artifact import result_markdown
from autosparse.tasks.results.advice import advised, opening
from autosparse.tasks.results.arm_reports import closed, opened
from autosparse.tasks.results.claims import claims, claims_table
from autosparse.tasks.results.drift_rows import drift_rows
from autosparse.tasks.results.frontier import Frontier, frontiers
from autosparse.tasks.results.frontier_words import frontier_table, sentence
from autosparse.tasks.results.ledger import ledger, ticket_seconds
from autosparse.tasks.results.measured import title_of
from autosparse.tasks.results.paired import control_rows, control_table
from autosparse.tasks.results.record import RunRecord, load_record
from autosparse.tasks.results.rows import Row, markdown_table, metric_name, summarize
from autosparse.tasks.results.verdicts import NO_RESULT, gaps, on_scorer

PICTURE = "summary/accuracy_density.png"  # as MLflow has it


@task(**TASK)
def summarize_arms(run: Run, arms: list[Report], title: str, command: str | None = None) -> Report:
    """Write summary.json, the table, the plots and the report page to storage, MLflow and the Prefect UI.

    `command` makes the run again; it stands on the page.
    """

    def work(step: Step) -> Report:
        found = [opened(arm) for arm in arms]
        rows, controls = summarize(found), control_rows(found)
        stored = [closed(row) for row in rows]
        _store(run, "summary.json", json.dumps(stored, indent=2).encode())
        _store(run, "summary.md", markdown_table(rows).encode())
        if controls:
            _store(run, "controls.json", json.dumps(controls, indent=2).encode())
            _store(run, "controls.md", control_table(controls).encode())
        record = load_record(run.store, run.name)
        paid = frontiers(found, record.scores, ticket_seconds(record))
        told = {**_store_claims(run, found, record), **_store_frontiers(run, paid)}
        for kind in ("png", "svg"):
            _store(run, f"accuracy_density.{kind}", accuracy_density_plot(rows, kind))
        for row in rows:
            if row["mean"] is not None:
                run.tracker.metrics(run.mlflow_run, {metric_name(row): row["mean"]})
        _store_page(run, command)
        run.tracker.describe(run.mlflow_run, run_note(run.spec, run.name, prefect=run.ids["prefect_url"], rows=rows, command=command))
        verdict = on_scorer(run.spec, gaps(record.arms)) or opening(advised(found, paid)) or NO_RESULT
        _show(run, rows, verdict, len(arms))
        return {"rows": stored, "controls": controls, "arms": len(arms), **told}

    return run_step(run, run.paths.summary, title, work)


def _store(run: Run, name: str, content: bytes) -> None:
    run.store.write(run.paths.summary_file(name), content)
    run.tracker.file(run.mlflow_run, f"summary/{name}", content)


def _store_claims(run: Run, arms: list[Report], record: RunRecord) -> Report:
    """Claims and what the drift guard said, in storage and for the report."""
    found = claims(arms, record.scores, ledger(record))
    told = {"claims": [claim.to_plain() for claim in found], "drift": drift_rows(record.scores)}
    if found:
        _store(run, "claims.json", json.dumps(told["claims"], indent=2).encode())
        _store(run, "claims.md", claims_table(found).encode())
    return told


def _store_frontiers(run: Run, found: list[Frontier]) -> Report:
    """Accuracy over each cost, in storage and for the report."""
    told = [{**one.to_plain(), "sentence": sentence(one)} for one in found]
    if found:
        _store(run, "frontier.json", json.dumps(told, indent=2).encode())
        _store(run, "frontier.md", frontier_table(found).encode())
    for number, one in enumerate(found):
        for kind in ("png", "svg"):
            _store(run, f"frontier{f'-{number}' if number else ''}.{kind}", frontier_plot(one, kind))
    return {"frontier": told}


def _store_page(run: Run, command: str | None) -> None:
    try:
        _store(run, "report.html", report_page(run.store, run.name, command).encode())
    except Exception as error:  # `autosparse report` makes it again at any time: no reason to fail a run of hours
        log().warning("no report page (%s: %s)", type(error).__name__, error)


def _show(run: Run, rows: list[Row], verdict: str, arms: int) -> None:
    """Table, picture and, last, so that it stands first, the result."""
    table_artifact(f"{run.name}-summary", [closed(row) for row in rows], f"Test {title_of(rows)} of the arms of {run.name}")
    page = run.store.uri(run.paths.summary_file("report.html"))
    links = {"MLflow run": run.tracker.address(run.mlflow_run), "Report page": page, "Everything else": run.ids["storage"]}
    try:
        if url := run.tracker.picture_url(run.mlflow_run, PICTURE):
            create_image_artifact(url, key=artifact_key(f"{run.name}-plot"), description=f"Test {title_of(rows)} over density")
        text = result_markdown(rows, verdict, arms, url, links)
        create_markdown_artifact(text, key=artifact_key(f"{run.name}-result"), description=verdict)
    except Exception as error:
        log().warning("Prefect did not take the artifacts of the summary (%s)", error)
