"""Accuracy of pruning at initialization on CIFAR-10 by the published protocol, on one GPU: method by density, per network.

    python -m benchmarks.cifar10_gpu --data FOLDER --out arms.jsonl

Torch core and storage alone: no Prefect, Ray or MLflow. Each finished arm is a line in the file of `--out`; a second call with
the same file trains only what is missing, and shows all. `benchmarks/cifar10_protocol.py` says what the protocol is.
"""

import hashlib
import statistics
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import nn

from autosparse.models.criteria.registry import CRITERIA
from autosparse.models.errors import AutosparseError, not_allowed, unknown_name
from autosparse.models.scorers.registry import restored_scorer
from autosparse.models.specs.run_specs import DENSE, SCORER
from autosparse.models.training.images import ImageSet, to_images
from autosparse.storage import paths
from autosparse.storage.image_datasets import ImageArrays, load_images
from autosparse.storage.open_store import open_store
from autosparse.storage.scorer_files import read_scorer_files
from benchmarks.arm_file import Record, append_arm, read_arms
from benchmarks.cifar10_arms import Workbench
from benchmarks.cifar10_protocol import DENSITIES, NETWORKS, SMOKE_DENSITIES, Arm, Setting, plan, setting
from benchmarks.reporting import commit, machine, options, report

METHODS = ("random", "magnitude", "snip", "synflow")
SMOKE_METHODS = ("random", "snip")
EPOCHS = 16  # a tenth of the published schedule: its milestones fall on whole epochs


def main(argv: Sequence[str] | None = None) -> None:
    """Train the missing arms and print the table."""
    args = _parser().parse_args(argv)
    if args.epochs is None:
        args.epochs = 1 if args.cpu_smoke else EPOCHS
    try:
        run(args)
    except AutosparseError as error:
        sys.exit(f"cifar10_gpu: {error}")


def run(args: Namespace) -> None:
    """The whole benchmark. Raises AutosparseError in one line for whatever cannot be used."""
    start = time.monotonic()
    arms, device = _planned(args), _device(args)
    compiled = not args.no_compile and device.type == "cuda"
    settings = {name: setting(name, args.epochs, compiled=compiled, smoke=args.cpu_smoke) for name in NETWORKS}
    scorer, digest = _scorer(args.scorer)
    arrays = _images(args, settings)
    fields = _fields(settings, arrays, digest)
    records = read_arms(args.out, fields)
    done = {_arm(record) for record in records}
    missing = [arm for arm in arms if arm not in done]
    train_arms(args, missing, Benches(settings, arrays, device, scorer), fields, records, start)
    left = [str(arm) for arm in missing if arm not in {_arm(record) for record in records}]
    if left:
        print(f"the budget of {args.budget_minutes:g} minutes is spent; {len(left)} arms are missing: {'; '.join(left)}")
    minutes = (time.monotonic() - start) / 60
    made_by = {(record["commit"], record["machine"]) for record in records}
    print(f"{args.epochs} epochs; {minutes:.1f} minutes for {len(missing) - len(left)} arms now, {len(done)} were there", flush=True)
    if len(made_by) > 1:
        print(f"arms of {len(made_by)} commits or machines: each line of {args.out} says which")
    facts = {"epochs": args.epochs, "wall_minutes": minutes, "missing": left, "arms": records}
    report("CIFAR-10 at initialization, accuracy in %: mean ± sd (n)", table(records), args, facts)


def train_arms(
    args: Namespace, missing: list[Arm], benches: "Benches", fields: Callable[[Record], dict[str, Any]], records: list[Record], start: float
) -> None:
    """Train the missing arms in order, as long as the mean time of those before fits into the budget; add them to file and `records`."""
    seconds: list[float] = []
    made_by = {"commit": commit(), "machine": machine()}
    for number, arm in enumerate(missing, 1):
        needed = time.monotonic() - start + (statistics.mean(seconds) if seconds else 0)
        if args.budget_minutes is not None and needed > args.budget_minutes * 60:
            return
        record = benches[arm.network].run(arm)
        record |= {"protocol": fields(record), **made_by, "date": datetime.now(UTC).isoformat(timespec="seconds")}
        append_arm(args.out, record)
        records.append(record)
        seconds.append(record["seconds"])
        print(f"{number}/{len(missing)} {arm}: {_percent(record)}, {record['seconds']:.1f} s", flush=True)


class Benches(dict[str, Workbench]):
    """A workbench per network, made when its first arm comes; the images are copied to the device once."""

    def __init__(self, settings: dict[str, Setting], arrays: ImageArrays, device: torch.device, scorer: nn.Module | None) -> None:
        super().__init__()
        self._settings, self._arrays, self._device, self._scorer = settings, arrays, device, scorer
        self._train: ImageSet | None = None
        self._test: ImageSet | None = None

    def __missing__(self, name: str) -> Workbench:
        arrays = self._arrays
        self._train = self._train or to_images(arrays.train_images, arrays.train_labels, self._device)
        self._test = self._test or to_images(arrays.test_images, arrays.test_labels, self._device)
        self[name] = Workbench(self._settings[name], self._train, self._test, len(arrays.classes), self._scorer)
        return self[name]


def table(records: list[Record]) -> list[dict[str, Any]]:
    """A row per network and method, a column per density: mean, sample standard deviation and number of the accuracies in %."""
    densities = sorted({record["density"] for record in records}, reverse=True)
    rows = []
    for network, method in dict.fromkeys((record["network"], record["method"]) for record in sorted(records, key=_place)):
        of_row = [record for record in records if (record["network"], record["method"]) == (network, method)]
        row: dict[str, Any] = {"network": network, "method": method}
        for density in densities:
            row[f"{density:g}"] = _cell([record for record in of_row if record["density"] == density])
        speeds = [record["images_per_s"] for record in of_row if "images_per_s" in record]
        scoring = [record["scoring_seconds"] for record in of_row if "scoring_seconds" in record]
        row["images/s"] = round(statistics.median(speeds)) if speeds else "-"
        row["scoring s"] = f"{statistics.median(scoring):.1f}" if scoring else "-"
        rows.append({**row, "arms min": f"{sum(record['seconds'] for record in of_row) / 60:.1f}"})
    return rows


def _place(record: Record) -> tuple[int, int]:
    order = (DENSE, *CRITERIA, SCORER)
    return list(NETWORKS).index(record["network"]), order.index(record["method"])


def _cell(records: list[Record]) -> str:
    values = [100 * record["accuracy"] for record in records if record["status"] == "ok"]
    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    shown = [f"{statistics.mean(values):.2f}{spread} ({len(values)})"] if values else []
    diverged = len(records) - len(values)
    return ", ".join(shown + ([f"{diverged} diverged"] if diverged else [])) or "-"


def _percent(record: Record) -> str:
    return f"{100 * record['accuracy']:.2f} %" if record["status"] == "ok" else record["reason"]


def _arm(record: Record) -> Arm:
    return Arm(record["network"], record["method"], record["density"], record["seed"])


def _planned(args: Namespace) -> list[Arm]:
    methods = args.methods or [*(SMOKE_METHODS if args.cpu_smoke else METHODS), *([SCORER] if args.scorer else [])]
    known = (*CRITERIA, SCORER, DENSE)
    for method in methods:
        if method not in known:
            raise unknown_name("methods", method, known)
    if SCORER in methods and not args.scorer:
        raise not_allowed("scorer", args.scorer, "a folder with scorer.json and scorer.safetensors")
    return plan(args.networks, methods, args.densities or list(SMOKE_DENSITIES if args.cpu_smoke else DENSITIES), args.seeds)


def _device(args: Namespace) -> torch.device:
    """The device, set up for one fixed batch shape. Raises SpecError without a GPU."""
    if args.cpu_smoke:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise not_allowed("device", "cpu", "a GPU with CUDA (or --cpu-smoke)")
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")
    return torch.device("cuda")


def _scorer(folder: str | None) -> tuple[nn.Module | None, str]:
    """The module and a digest of its two files."""
    if folder is None:
        return None, ""
    path = Path(folder).resolve()
    store = open_store(str(path.parent))
    card, tensors = read_scorer_files(store, path.name)
    files = (paths.scorer_card(path.name), paths.scorer_weights(path.name))
    digest = hashlib.sha256(b"".join(store.read(file) for file in files)).hexdigest()[:12]
    return restored_scorer(card["scorer"], tensors, folder), digest


def _images(args: Namespace, settings: dict[str, Setting]) -> ImageArrays:
    data = next(iter(settings.values())).protocol.data
    if data.name == "parquet" and not args.data:
        raise not_allowed("data", args.data, "a folder with train.parquet and test.parquet")
    return load_images(replace(data, path=args.data if data.name == "parquet" else None, download=False), None)


def _fields(settings: dict[str, Setting], arrays: ImageArrays, scorer_digest: str) -> Callable[[Record], dict[str, Any]]:
    """The protocol that a record must be of; a scorer of an older call counts only where this call has one."""
    by_network = {name: one.fields(arrays.digest) for name, one in settings.items()}

    def fields(record: Record) -> dict[str, Any]:
        learned = {"scorer": scorer_digest} if record["method"] == SCORER and scorer_digest else {}
        return by_network[record["network"]] | learned

    return fields


def _parser() -> ArgumentParser:
    parser = options(__doc__)
    parser.add_argument("--data", metavar="FOLDER", help="CIFAR-10 as train.parquet and test.parquet")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="finished arms, a line of JSON each; gone on from")
    parser.add_argument("--epochs", type=int, help=f"length of the schedule (default {EPOCHS}; published: 160)")
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), metavar="NAME", help="default: %(default)s")
    parser.add_argument("--methods", nargs="+", metavar="NAME", help=f"criteria, {SCORER}, {DENSE} (default: {' '.join(METHODS)})")
    parser.add_argument("--densities", nargs="+", type=float, metavar="D", help=f"default: {' '.join(map(str, DENSITIES))}")
    parser.add_argument("--seeds", nargs="+", type=int, default=[10], metavar="N", help="not those of the scorer's tickets (default 10)")
    parser.add_argument("--scorer", metavar="FOLDER", help="a fitted scorer: scorer.json and scorer.safetensors")
    parser.add_argument("--budget-minutes", type=float, metavar="M", help="start no arm that would take longer than that in all")
    parser.add_argument("--no-compile", action="store_true", help="without torch.compile")
    parser.add_argument("--cpu-smoke", action="store_true", help="the same on the CPU in seconds: digits, narrow networks, 1 epoch")
    return parser


if __name__ == "__main__":
    main()
