"""The card of a registered scorer, in Markdown: what it is, how good it is beside plain formulas, how to use it."""

from typing import Any

from autosparse.models.specs.experiment import ExperimentSpec
from autosparse.models.specs.fields import fingerprint
from autosparse.tasks.results.markdown import markdown

FIGURES = ("spearman_pooled", "spearman_within_layer", "mse", "label_variance")
MODEL = "models:/autosparse-scorer"


def comparison(report: dict[str, Any]) -> list[dict[str, object]]:
    """Rows of held-out group x scorer or baseline: Spearman pooled and within layer, mse against label variance."""
    return [
        {"held_out": group, "scored_by": who, **{name: round(figures[name], 4) if name in figures else "-" for name in FIGURES}}
        for group, metrics in report["metrics"].items()
        for who, figures in {f"scorer ({report['kind']})": metrics, **metrics.get("baselines", {})}.items()
    ]


def figures(metrics: dict[str, Any]) -> dict[str, float]:
    """The numbers of each held-out group as metrics of MLflow: `held_out_seeds/spearman_pooled`."""
    return {
        f"held_out_{group}/{name}": float(value)
        for group, found in metrics.items()
        for name, value in found.items()
        if isinstance(value, int | float)
    }


def model_card(run: str, spec: ExperimentSpec, card: dict[str, Any], fitted: dict[str, Any]) -> str:
    """The card of the scorer of a run; `card` is its scorer.json, `fitted` the report of its fit."""
    scorer, irp = spec.scorer, spec.irp
    sources = ", ".join(card.get("trained_on", {}).get("sources", ())) or ", ".join(network.label for network in irp.networks)
    rows = card.get("dataset", {}).get("rows")
    about = {
        "kind": f"{fitted['kind']}, {fitted.get('parameters', '?')} parameters, cut by {_CUT[scorer.allocation]}",
        "learned": f"{scorer.label} of {rows:,} weights" if rows else scorer.label,
        "from": f"{sources} on {card.get('data', spec.data.title)}, {irp.rounds} IRP rounds down to density {irp.final_density:g}",
        "features": ", ".join(card.get("scorer", {}).get("features", ())),
        "made by": f"run {run}, spec {fingerprint(spec)}",
    }
    figures = [[str(value) for value in row.values()] for row in comparison(fitted)]
    return f"""Which weights of a network to keep, chosen at initialization from each weight, its gradient and its layer.

{markdown(["scorer", ""], [[name, str(text)] for name, text in about.items() if text])}
**On held-out {" and ".join(fitted["metrics"])}**

{markdown(["held out", "scored by", "Spearman", "within layers", "mse", "variance of labels"], figures)}
**Use it**

    autosparse prune NETWORK --scorer {MODEL}@champion --density 0.05 --data DATA --out FOLDER
    mlflow models serve -m {MODEL}@champion --env-manager local

A served scorer takes one row per weight (layer, shape, weight, gradient) and gives score and keep, the mask of `autosparse.prune`.

**Limits.** The figures say how well scores rank survival labels, not how accurate a pruned network is: see the run's report for that.
Networks whose features are unlike those it learned from are named by `autosparse prune --details`."""


_CUT = {"global": "its scores", "learned": "learned layer densities", "paths": "paths"}
