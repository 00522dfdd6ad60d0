"""What all benchmarks share: options, the line that says where a figure was measured, the table and the JSON file."""

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def options(description: str | None, *, repeat: int | None = None) -> ArgumentParser:
    """A parser with the options of every benchmark: `--json`, and `--repeat` where a default is given for it."""
    parser = ArgumentParser(description=description, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    if repeat is not None:
        parser.add_argument("--repeat", type=int, default=repeat, help="measurements of each figure (default %(default)s)")
    return parser


def arguments(description: str | None, add: Callable[[ArgumentParser], None]) -> Namespace:
    """The parsed command line of a benchmark that adds its own options by `add(parser)`."""
    parser = options(description)
    add(parser)
    return parser.parse_args()


def figure(measure: str, unit: str, values: list[float], target: str = "") -> dict[str, Any]:
    """One row of a report: median, least, most and number of `values`."""
    return {
        "measure": measure,
        "median": statistics.median(values),
        "unit": unit,
        "least": min(values),
        "most": max(values),
        "n": len(values),
        "target": target,
    }


def report(name: str, rows: list[dict[str, Any]], args: Namespace, facts: dict[str, Any] | None = None) -> None:
    """Print `rows` as a table with their keys as columns, under a line that says where; write them to `args.json` if given.

    `facts` go into the file alone, beside the figures.
    """
    print(where(name))
    columns = list(dict.fromkeys(column for row in rows for column in row))
    cells = [columns, *([_shown(row.get(column, "")) for column in columns] for row in rows)]
    widths = [max(len(line[index]) for line in cells) for index in range(len(columns))]
    for line in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    save(name, rows, args, facts)


def where(name: str) -> str:
    """The line that says what was measured where and when."""
    return f"{name} ({machine()}; commit {commit()}; {_today()})"


def save(name: str, rows: list[dict[str, Any]], args: Namespace, facts: dict[str, Any] | None = None) -> None:
    """Write `rows` and `facts` to `args.json` if given; of absolute paths among the settings, which are one machine's, the last name."""
    if args.json:
        header = {"benchmark": name, "machine": machine(), "commit": commit(), "date": _today()}
        settings = {key: _named(value) for key, value in vars(args).items() if key != "json"}
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps({**header, "settings": settings, "figures": rows, **(facts or {})}, indent=1, default=str) + "\n")


def _named(value: Any) -> Any:
    return Path(value).name if isinstance(value, str | Path) and Path(value).is_absolute() else value


def _today() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d")


def machine() -> str:
    """Processor, usable cores, memory, GPU, Python."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    parts = [_processor(), f"{cores} cores", f"{memory:.0f} GiB"]
    torch = sys.modules.get("torch")
    if torch is not None:
        parts += [f"torch {torch.__version__}"]
        parts += [torch.cuda.get_device_name()] if torch.cuda.is_available() else []
    return ", ".join([*parts, f"Python {platform.python_version()}"])


def commit() -> str:
    """The commit that was measured; `-dirty` where the checkout differs from it."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def peak_mib() -> float:
    """The most memory this process has held so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)  # KiB but on macOS


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) and value < 1000 else f"{value:,.0f}" if isinstance(value, float) else str(value)
