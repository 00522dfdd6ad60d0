"""What `autosparse init` has to know: from its options, and in a terminal by questions for the rest."""

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from autosparse.flows.init.plans import budget_of
from autosparse.models.errors import SpecError, not_allowed
from autosparse.models.imported import is_outside
from autosparse.models.specs.run_specs import DataSpec, NetworkSpec
from autosparse.storage.addresses import LOCAL, S3, address_kind, is_local
from autosparse.storage.image_datasets import DATASETS, has_test
from autosparse.storage.open_store import open_store

PARQUET, FOLDER = "parquet", "image_folder"  # of DATASETS: kinds of files at a path
BUDGET = "30m"
TEST_SHARE = 0.2  # of the training images, where files have no test split
NAMES = tuple(name for name in DATASETS if name not in (PARQUET, FOLDER))
DATA = f"a data set ({', '.join(NAMES)}), a folder, s3://bucket/prefix or package.module:task"
NETWORK = "a network by name, torchvision:NAME or package.module:factory"

Answer = TypeVar("Answer")


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The first network is the source; the path of the data is as seen from the folder of the file."""

    networks: tuple[NetworkSpec, ...]
    data: DataSpec
    budget_s: float


def asked(networks: Sequence[str], data: str | None, budget: str | None, folder: Path) -> Asked:
    """What was given, and answers to what was not; `folder` is that of the file. Raises SpecError, a line for each that is missing."""
    terminal = sys.stdin.isatty()
    missing = [
        f"{option}: missing; allowed: {what}"
        for option, what, given in (("--network", NETWORK, networks), ("--data", DATA, data))
        if not given
    ]
    if missing and not terminal:
        raise SpecError("\n".join(missing))

    def answer(question: str, usual: str, given: str | None, read: Callable[[str], Answer]) -> Answer:
        return read(given) if given is not None else _ask(question, usual, read) if terminal else read(usual)

    first, *more = networks or (None,)
    return Asked(
        networks=(answer(f"Network, {NETWORK}", "resnet8", first, _network), *(_network(str(name)) for name in more)),
        data=answer(f"Data, {DATA}", "digits", data, lambda text: data_of(text, folder)),
        budget_s=answer("Time that the run may take, such as 5m, 2h, 1d", BUDGET, budget, budget_of),
    )


def data_of(text: str, folder: Path) -> DataSpec:
    """The data that a person means by a name, a folder, an address or a task. Raises SpecError."""
    if text in NAMES or (is_outside(text) and not Path(text).exists()):
        return DataSpec(name=text)
    if address_kind("--data", text, LOCAL, S3) == S3:
        parquet = any(name.endswith(".parquet") for name in open_store(text).list())
        return DataSpec(name=PARQUET if parquet else FOLDER, path=text)
    place = Path(text).expanduser()
    if not place.is_dir():
        raise not_allowed("--data", text, DATA)
    parquet = any(place.rglob("*.parquet"))
    path = text if place.is_absolute() else os.path.relpath(place.absolute(), folder)
    return DataSpec(name=PARQUET if parquet else FOLDER, path=path)


def with_test(data: DataSpec, folder: Path) -> DataSpec:
    """The data, or where files have no test split a fifth of their training images as the test; paths are relative to `folder`."""
    if data.path is None or data.test_share:
        return data
    place = str(folder / Path(data.path).expanduser()) if is_local(data.path) else data.path
    return data if has_test(replace(data, path=place)) else replace(data, test_share=TEST_SHARE)


def _network(name: str) -> NetworkSpec:
    try:
        return NetworkSpec(name=name)
    except SpecError as error:
        raise SpecError(f"--network: {str(error).removeprefix('name: ')}") from None


def _ask(question: str, usual: str, read: Callable[[str], Answer]) -> Answer:
    while True:
        sys.stdout.write(f"{question} [{usual}]: ")
        sys.stdout.flush()
        line = sys.stdin.readline()
        if not line:
            raise SpecError(f"{question.partition(',')[0].lower()}: missing; allowed: an answer, or the option")
        try:
            return read(line.strip() or usual)
        except SpecError as error:
            sys.stdout.write(f"{error}\n")
