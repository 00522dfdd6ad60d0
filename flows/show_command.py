"""What a run did, for people: results table, held-out figures of the scorer, addresses."""

from typing import Any

from rich.console import Console
from rich.table import Column, Table

Found = dict[str, Any]
console = Console(soft_wrap=True)


def print_run(found: Found) -> None:
    """The whole run as tables."""
    console.print(f"[bold]{found['name']}[/]  spec {found['fingerprint']}")
    if found["rounds"]:
        _print_rounds(found)
    print_results(found)
    print_advice(found)
    print_frontier(found["frontier"])
    print_valley(found["valley"])
    print_addresses(found)


def _print_rounds(found: Found) -> None:
    from autosparse.tasks.results.measured import title_of, value_of

    rounds = Table("source", "seed", "round", "density", title_of(found["rounds"]), "seconds", title="IRP rounds")
    for row in found["rounds"]:
        figures = (f"{row['density']:.4g}", f"{value_of(row):.4f}", f"{row['seconds']:.1f}")
        rounds.add_row(row["source"], str(row["seed"]), str(row["round"]), *figures)
    console.print(rounds)


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
    from autosparse.tasks.results.arm_reports import opened
    from autosparse.tasks.results.measured import title_of
    from autosparse.tasks.results.rows import cell, compacted, landed, number_at, share, targeted

    rows = targeted(found["summary"])
    densities = sorted({row["density"] for row in rows if row["method"] != "dense"}, reverse=True)
    heads = [f"{number_at([opened(row) for row in rows], density)} {density:g}" for density in densities]
    table = Table("target", "dataset", Column("method", overflow="fold"), *heads, title=f"test {title_of(rows)}, last epoch")
    for target, dataset, method in dict.fromkeys((row["target"], row["dataset"], row["method"]) for row in rows):
        mine = {row["density"]: cell(row) for row in rows if (row["target"], row["dataset"], row["method"]) == (target, dataset, method)}
        shown = [mine[1.0]] * len(densities) if method == "dense" else [mine.get(density, "") for density in densities]
        table.add_row(target, dataset, method, *shown)
    console.print(table)
    if others := landed(found["summary"]):
        table = Table(
            "target", "dataset", "method", "density", title_of(others), title="methods without a density target, where they landed"
        )
        for row in others:
            table.add_row(row["target"], row["dataset"], row["method"], share(row["kept_density"]), cell(row))
        console.print(table)
    if said := compacted([opened(row) for row in found["summary"]]):
        console.print(said, highlight=False, markup=False)


def print_advice(found: Found) -> None:
    """What to use at which density, and how small it gets."""
    from autosparse.tasks.results.advice import advised, lines
    from autosparse.tasks.results.arm_reports import opened
    from autosparse.tasks.results.frontier import from_plain

    told = lines(advised([opened(arm) for arm in found["arms"]], [from_plain(one) for one in found["frontier"]]), found["name"])
    if told:
        console.print("What to use", style="bold")
    for line in told:
        console.print(line, highlight=False, markup=False)


def print_frontier(found: list[Found]) -> None:
    """By each cost: what is on the frontier, and where the points stand beside narrower dense networks. The figures are in frontier.md."""
    from autosparse.tasks.results.frontier import from_plain
    from autosparse.tasks.results.frontier_words import SUMMARY, frontier_summary, sentence

    for frontier in map(from_plain, found):
        table = Table(*SUMMARY, title=f"{frontier.target} on {frontier.dataset}: {frontier.metric.title} over cost", show_lines=True)
        for line in frontier_summary(frontier):
            table.add_row(*line)
        console.print(table)
        console.print(sentence(frontier), highlight=False, markup=False)


def print_valley(found: list[Found]) -> None:
    """Comparisons of two arms."""
    if not found:
        return
    names = ("target", "first", "second", "highest loss on the curve", "on the line", "distance", "share in the top directions", "random")
    table = Table(*names, title="valleys")
    for report in found:
        curve, first = report.get("records", {}).get("curve"), report.get("records", {}).get("hessian", {}).get("first")
        figures = [f"{curve['curve_loss_max']:.4g}", f"{curve['line_loss_max']:.4g}"] if curve else ["", report.get("reason", "")]
        figures += [f"{first['distance']:.3g}", f"{first['share']:.2g}", f"{first['share_random']:.1g}"] if first else []
        table.add_row(report["target"], *(f"{report[side]['short']} #{report[side]['seed']}" for side in ("first", "second")), *figures)
    console.print(table)
    for report in found:
        for probe, reason in report.get("failed", {}).items():
            console.print(f"{probe} of {report['first']['short']} and {report['second']['short']}: {reason}", highlight=False, markup=False)


def print_addresses(found: Found) -> None:
    """Where to look further."""
    for name, address in found["addresses"].items():
        if address:
            console.print(f"{name:12} {address}", highlight=False)
