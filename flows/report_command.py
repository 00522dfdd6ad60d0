"""`autosparse report`: one HTML page about a run, made from storage alone."""

from pathlib import Path

from autosparse.flows.rerun import rerun_command
from autosparse.models.specs.experiment import stored_spec
from autosparse.storage.disk import disk_error
from autosparse.storage.open_store import open_store
from autosparse.tasks import settings
from autosparse.tasks.report.page import report_page
from autosparse.tasks.results.run_view import view_run


def write_report(run: str, out: Path | None) -> Path:
    """Write the page to `out`, by default report-RUN.html here. Raises DataError: no such run, or a place one cannot write to."""
    store = open_store(settings.load().storage)
    spec = stored_spec(view_run(store, run)["spec"])
    page = report_page(store, run, rerun_command(spec, run))
    path = out or Path(f"report-{run}.html")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise disk_error(path, error, len(page.encode())) from error
    return path
