"""What a person reads on a run's page in MLflow, in Markdown: of the whole run, and a line or two of each step.

`{run}` and `{experiment}` stand for MLflow's ids, which its receiver knows (tasks/tracking/records.py).
"""

from collections.abc import Callable
from typing import Any

from autosparse.models.arms.arm import split_name
from autosparse.models.specs.experiment import ExperimentSpec
from autosparse.models.specs.fields import fingerprint
from autosparse.models.specs.grain import number_of
from autosparse.tasks.report.model_card import comparison
from autosparse.tasks.results.markdown import markdown
from autosparse.tasks.results.measured import metric_of, title_of, value_of
from autosparse.tasks.results.rows import Row, markdown_table

LONGEST_TABLE = 4000  # characters; MLflow cuts a description at 8000
RUN_PAGE = "#/experiments/{experiment}/runs/{run}"
TRAINING = "?workflowType=machine_learning"  # MLflow 3.17 opens pages of language models, whatever the experiment's kind, unless it is told

Report = dict[str, Any]


def run_note(spec: ExperimentSpec, name: str, *, prefect: str | None, rows: list[Row] | None = None, command: str | None = None) -> str:
    """Of the whole run: what it is; with `rows`, its results, their picture and the report page as well."""
    fanout, targets = spec.fanout, _list(target.label for target in spec.fanout.targets)
    arms = f"by {_list(fanout.all_methods)} at densities {_list(fanout.densities)}, seeds {_list(fanout.seeds)}"
    about = {
        "spec": f"{fingerprint(spec)}, as `spec.json` among the artifacts" + (f"; made by `{command}`" if command else ""),
        **(_learning(spec) if spec.irp.seeds else {}),
        "prunes": f"{targets} on {spec.data.title} {arms}",
    }
    links = [f"[report page]({RUN_PAGE}/artifacts/summary/report.html{TRAINING})"] if rows is not None else []
    links += [f"[Prefect run]({prefect})"] if prefect else []
    parts = [" · ".join([*links, f"`autosparse show {name}`"])]
    if rows is not None:  # first, because MLflow folds long descriptions
        parts += [f"**Test {title_of(rows)}, last epoch**", _short(markdown_table(rows)), _picture("summary/accuracy_density.png")]
    return "\n\n".join([*parts, markdown(["pruning at initialization", ""], [[key, text] for key, text in about.items()])])


def _learning(spec: ExperimentSpec) -> dict[str, str]:
    irp, scorer = spec.irp, spec.scorer
    sources = ", ".join(network.label for network in irp.networks)
    return {
        "learns from": f"{sources} on {spec.data.title}, seeds {_list(irp.seeds)}, {irp.rounds} IRP rounds down to {irp.final_density:g}",
        "scorer": f"{scorer.kind} for the label {scorer.label}, allocation {scorer.allocation}",
    }


def step_note(report: Report) -> str:
    """Of a finished step, by its report; empty where that says too little, as reports of earlier versions may: no reason to fail."""
    try:
        return next((note(report) for field, note in NOTES.items() if field in report), "")
    except (KeyError, TypeError, ValueError):
        return ""


def failure_note(error: BaseException) -> str:
    """Of a step that failed."""
    return f"Failed: {type(error).__name__}: {error}"


def _round(report: Report) -> str:
    line = f"Round {report['round']} of {report['source']}, seed {report['seed']}: trained at density {report['density']:.3g}"
    line += f"{_reached(report)}; then cut to {report['density_after']:.3g}."
    return f"{line}\n\n{_picture('layer_densities.png')}"


def _features(report: Report) -> str:
    told = f"{report['rows']:,} rows, one per prunable weight of {report['sources']} source networks and seeds"
    return f"{told}: its initial value and gradient, and the rounds it survived. Digest {report['digest']}."


def _fit(report: Report) -> str:
    lines = [[str(value) for value in row.values()] for row in comparison(report)]
    head = ["held out", "scored by", "Spearman", "within layers", "mse", "variance of labels"]
    return f"A scorer ({report['kind']}), fitted in {len(report['losses'])} epochs, beside plain formulas:\n\n{markdown(head, lines)}"


def _registration(report: Report) -> str:
    version = report["version"]
    page = f"#/models/autosparse-scorer/versions/{version}{TRAINING}"
    said = "the champion" if report["champion"] else "not the champion"
    return f"[Version {version}]({page}) of the scorer: held-out {report['held_out']:.4f}, {said}."


def _scoring(report: Report) -> str:
    cuts = ", ".join(f"{density} ({cut['kept']:,} kept)" for density, cut in report["cuts"].items())
    return f"{report['weights']:,} weights of {report['target']}, seed {report['seed']}, scored by {report['method']}; cut at {cuts}."


def _arm(report: Report) -> str:
    number = number_of([split_name(report["method"])[0]])
    density = "" if report["density"] is None else f" at {number} {report['density']:g}"
    line = f"{report['target']} on {report['dataset']}, seed {report['seed']}, by {report['method']}{density}: {report['status']}"
    kept = f", {report['kept_density']:.3g} of the weights kept" if report.get("kept_density") is not None else ""
    return f"{line}{_reached(report)}{kept}."


def _data(report: Report) -> str:
    classes = f", {len(report['classes'])} classes" if report.get("classes") else ""
    return f"{report['train']:,} training and {report['test']:,} test examples{classes}. Digest {report['digest']}."


def _summary(report: Report) -> str:
    return f"Tables, pictures and the report page of {report['arms']} arms: they lie with the whole run, below summary."


def _comparison(report: Report) -> str:
    return f"What lies between the minima of {report['first']['text']} and {report['second']['text']}: {report['status']}."


# a field that no other step's report has -> its note
NOTES: dict[str, Callable[[Report], str]] = {
    "density_after": _round,
    "uri": _features,
    "version": _registration,
    "losses": _fit,
    "cuts": _scoring,
    "first": _comparison,
    "status": _arm,
    "train": _data,
    "arms": _summary,
}


def _reached(report: Report) -> str:
    value = value_of(report)
    return "" if value is None else f", {metric_of(report).name} {value:.4f}"


def _picture(path: str) -> str:
    return f"![{path}](get-artifact?path={path}&run_uuid={{run}})"


def _list(values: Any) -> str:
    return ", ".join(map(str, values))


def _short(table: str) -> str:
    """Whole lines, as many as a description takes."""
    kept = table[:LONGEST_TABLE]
    return table if kept == table else f"{kept[: kept.rfind(chr(10))]}\n\nThe rest is in `summary/summary.md`."
