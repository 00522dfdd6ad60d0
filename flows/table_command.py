"""`autosparse table`: a paper's table from finished runs, out of storage alone."""

import json
from collections.abc import Sequence
from pathlib import Path

from autosparse.models.errors import not_allowed
from autosparse.storage.disk import disk_error
from autosparse.storage.open_store import open_store
from autosparse.tasks import settings
from autosparse.tasks.report.plots import accuracy_density_plot
from autosparse.tasks.results.table import ResultTable, result_table
from autosparse.tasks.results.table_text import csv_text, latex_text, markdown_text

MARKDOWN, LATEX, CSV, JSON = "markdown", "latex", "csv", "json"
ENDINGS = {".md": MARKDOWN, ".tex": LATEX, ".csv": CSV, ".json": JSON}
PICTURES = (".png", ".svg")


def made_table(
    runs: Sequence[str], *, over: Sequence[str], against: str | None, form: str, costs: bool, out: Path | None, plot: Path | None
) -> str:
    """The table of these runs in that form, or what was written where with `out`. Raises SpecError and DataError."""
    if plot and plot.suffix not in PICTURES:
        raise not_allowed("--plot", str(plot), f"a file that ends in {' or '.join(PICTURES)}")
    table = result_table(open_store(settings.load().storage), runs, over, against)
    if plot and table.over:
        raise not_allowed("--plot", str(plot), f"a plot without --over {table.over[0]}: it has one curve per method")
    if plot:
        write(plot, accuracy_density_plot([line.row for line in table.lines], plot.suffix.removeprefix(".")))
    text = in_form(table, form, costs=costs)
    if out is None:
        return text
    write(out, text.encode())
    return f"{out}\n"


def form_of(*, markdown: bool, latex: bool, csv: bool, json_: bool, out: Path | None) -> str:
    """The one form that was asked for; else the file's ending says it, else Markdown. Raises SpecError for two."""
    asked = [form for form, wanted in ((MARKDOWN, markdown), (LATEX, latex), (CSV, csv), (JSON, json_)) if wanted]
    if len(asked) > 1:
        raise not_allowed(f"--{asked[1]}", f"beside --{asked[0]}", "one form of the table")
    return asked[0] if asked else ENDINGS.get(out.suffix if out else "", MARKDOWN)


def in_form(table: ResultTable, form: str, *, costs: bool = False) -> str:
    """The table as text, with a line end."""
    if form == JSON:
        return json.dumps(table.to_plain(), indent=2) + "\n"
    return {LATEX: latex_text, CSV: csv_text}[form](table) if form != MARKDOWN else markdown_text(table, costs=costs)


def write(path: Path, content: bytes) -> None:
    """Put a file where the person asked for it. Raises DataError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        raise disk_error(path, error, len(content)) from error
