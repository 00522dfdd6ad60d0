"""`autosparse report`: one HTML page about a run, made from storage alone."""

from pathlib import Path

from flows.rerun import rerun_command
from models.experiment import ExperimentSpec
from models.spec_fields import from_plain
from storage.disk import disk_error
from storage.store import open_store
from tasks import settings
from tasks.report_page import report_page
from tasks.run_view import view_run


def write_report(run: str, out: Path | None) -> Path:
    """Write the page to `out`, by default report-RUN.html here. Raises DataError: no such run, or a place one cannot write to."""
    store = open_store(settings.load().storage)
    spec = from_plain(ExperimentSpec, view_run(store, run)["spec"])
    page = report_page(store, run, rerun_command(spec, run))
    path = out or Path(f"report-{run}.html")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise disk_error(path, error, len(page.encode())) from error
    return path
