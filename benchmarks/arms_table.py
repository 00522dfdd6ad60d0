"""One table and one plot of the arms of one or several runs under one protocol.

    python -m benchmarks.arms_table family family-seeds --out benchmarks/results/methods_small_cifar

Runs of other seeds add up to means over seeds. Reads AUTOSPARSE_STORAGE; writes OUT.md and OUT.png. Protocols that differ are refused.
"""

import argparse
from pathlib import Path

from autosparse.models.specs.run_specs import DENSE
from autosparse.storage.open_store import open_store
from autosparse.storage.store import Store
from autosparse.tasks import settings
from autosparse.tasks.report.plots import accuracy_density_plot
from autosparse.tasks.results.arm_reports import Report, name_of
from autosparse.tasks.results.markdown import markdown
from autosparse.tasks.results.record import load_record
from autosparse.tasks.results.rows import Row, cell, share, summarize

HEAD = (
    *("target", "method", "asked density", "prunable weights left", "of all parameters", "on paths", "accuracy"),
    *("MACs to infer", "MACs to train", "seconds", "peak MiB"),
)


def arms_of(store: Store, runs: list[str]) -> list[Report]:
    """The arms of all runs; one that several runs have (the dense network of a seed) counts once."""
    found: dict[tuple[object, ...], Report] = {}
    for run in runs:
        for arm in load_record(store, run).arms:
            found.setdefault(tuple(arm[name] for name in ("target", "dataset", "method", "control", "density", "seed")), arm)
    return list(found.values())


def table(rows: list[Row]) -> str:
    """Markdown; MACs as shares of those of the dense network of the target."""
    dense = {row["target"]: row for row in rows if row["method"] == DENSE}
    lines = []
    for row in rows:
        base = dense.get(row["target"], row)
        shares = [share(row[name]) for name in ("density", "kept_density", "density_all", "effective_density")]
        macs = [_ratio(row[name], base[name]) for name in ("inference_macs", "training_macs")]
        costs = [_whole(row["training_seconds"]), _whole(row["peak_memory_bytes"], 2**20)]
        lines.append([row["target"], name_of(row), *shares, cell(row), *macs, *costs])
    return markdown(HEAD, lines)


def _ratio(value: float | None, base: float | None) -> str:
    return f"{value / base:.3f}" if value is not None and base else "-"


def _whole(value: float | None, unit: float = 1) -> str:
    return "-" if value is None else f"{value / unit:.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    rows = summarize(arms_of(open_store(settings.load().storage), options.runs))
    options.out.with_suffix(".md").write_text(table(rows))
    options.out.with_suffix(".png").write_bytes(accuracy_density_plot(rows, "png"))
    print(table(rows))


if __name__ == "__main__":
    main()
