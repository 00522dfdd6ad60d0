"""What a run did, for people: results table, held-out figures of the scorer, addresses."""

from typing import Any

from rich.console import Console
from rich.table import Table

Found = dict[str, Any]
console = Console(soft_wrap=True)


def print_run(found: Found) -> None:
    """The whole run as tables."""
    console.print(f"[bold]{found['name']}[/]  spec {found['fingerprint']}")
    rounds = Table("source", "seed", "round", "density", "accuracy", "seconds", title="IRP rounds")
    for row in found["rounds"]:
        rounds.add_row(
            row["source"], str(row["seed"]), str(row["round"]), f"{row['density']:.4g}", f"{row['accuracy']:.4f}", f"{row['seconds']:.1f}"
        )
    console.print(rounds)
    print_results(found)
    print_addresses(found)


def print_results(found: Found) -> None:
    """Scorer and arms."""
    if found["scorer"]:
        metrics = found["scorer"]["metrics"]
        figures = ", ".join(
            f"{group}: Spearman {values['spearman_pooled']:.3f} pooled, {values['spearman_within_layer']:.3f} within layers"
            for group, values in metrics.items()
        )
        console.print(f"scorer version {found['scorer'].get('version', '-')}, held-out {figures}")
    if not found["summary"]:
        return
    from tasks.result_rows import cell, landed, share, targeted

    rows = targeted(found["summary"])
    densities = sorted({row["density"] for row in rows if row["method"] != "dense"}, reverse=True)
    table = Table("target", "dataset", "method", *(f"density {density:g}" for density in densities), title="test accuracy, last epoch")
    for target, dataset, method in dict.fromkeys((row["target"], row["dataset"], row["method"]) for row in rows):
        mine = {row["density"]: cell(row) for row in rows if (row["target"], row["dataset"], row["method"]) == (target, dataset, method)}
        shown = [mine[1.0]] * len(densities) if method == "dense" else [mine.get(density, "") for density in densities]
        table.add_row(target, dataset, method, *shown)
    console.print(table)
    if others := landed(found["summary"]):
        table = Table("target", "dataset", "method", "density", "accuracy", title="methods without a density target, where they landed")
        for row in others:
            table.add_row(row["target"], row["dataset"], row["method"], share(row["kept_density"]), cell(row))
        console.print(table)


def print_addresses(found: Found) -> None:
    """Where to look further."""
    for name, address in found["addresses"].items():
        if address:
            console.print(f"{name:12} {address}", highlight=False)
