"""Which Parquet files are which split, in every layout of the Hugging Face Hub.

train.parquet, train-*.parquet                    beside each other, in `data/` or in a folder per configuration
train/0000.parquet                                a folder per split, in the same places
"""

import re
from collections.abc import Iterable

from autosparse.models.errors import DataError
from autosparse.storage.image_sources.source import SPLIT_NAMES

WORDS = tuple(word for words in SPLIT_NAMES.values() for word in words)
FILE = re.compile(rf"({'|'.join(WORDS)})(-.*)?\.parquet")
SHARD = re.compile(r"-of-0*(\d+)")
ROOTS = ("", "data")  # places that are no configuration of their own, the first that has a training split

Layout = dict[str, list[str]]  # a split's own name -> its files in their order


def split_files(keys: Iterable[str], *, field: str, root: str, joint: str) -> Layout:
    """The files of the one configuration below `root`, by the names that its splits have there.

    `field` has `root` as its value; `root`, `joint` and a name make that of one configuration. Raises DataError where there is no training
    split, or one in several configurations.
    """
    places: dict[tuple[str, bool], Layout] = {}
    for key in sorted(keys):
        *folders, name = key.split("/")
        if found := FILE.fullmatch(name):
            places.setdefault(("/".join(folders), False), {}).setdefault(found[1], []).append(key)
        elif folders and folders[-1] in WORDS and name.endswith(".parquet"):
            places.setdefault(("/".join(folders[:-1]), True), {}).setdefault(folders[-1], []).append(key)
    whole = {place: files for place, files in places.items() if any(word in files for word in SPLIT_NAMES["train"])}
    for place in ROOTS:
        for nested in (False, True):
            if (place, nested) in whole:
                return whole[place, nested]
    names = sorted({place for place, _ in whole})
    if len(names) > 1:
        raise DataError(
            f"{field}: {root} has several configurations; allowed: one of {', '.join(f'{root}{joint}{name}' for name in names)}"
        )
    if not names:
        raise DataError(f"{field}: {root} has no train.parquet, train-*.parquet or train/*.parquet, nor a folder with one")
    return whole.get((names[0], False)) or whole[names[0], True]


def missing_shards(keys: Iterable[str]) -> tuple[str, ...]:
    """A sentence where names say that there should be more files, as `-00000-of-00002` does."""
    there = list(keys)
    promised = [int(found[1]) for key in there if (found := SHARD.search(key))]
    if not promised or len(there) >= max(promised):
        return ()
    return (f"{there[0]}: {len(there)} of {max(promised)} files are there, and these alone are read",)
