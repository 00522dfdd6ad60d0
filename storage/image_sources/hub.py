"""Image data sets of the Hugging Face Hub by name: `hf:owner/name`, `hf:owner/name@configuration`.

Their Parquet files come through huggingface_hub into its cache (HF_HOME), and then are read as any others. Not through `datasets`: that
makes a second copy in a format of its own, decodes by its own rules and brings pandas, where all that is wanted are the files. A set whose
repository has no Parquet files is taken from the branch on which the Hub keeps its conversion.
"""

import contextlib
import re
from pathlib import Path
from typing import Any

from autosparse.models.errors import AutosparseError, DataError, not_allowed
from autosparse.storage.image_sources.parquet import ParquetImages
from autosparse.storage.image_sources.parquet_layout import split_files
from autosparse.storage.image_sources.source import DataFields
from autosparse.storage.open_store import open_store

PREFIX = "hf:"
NAME = re.compile(r"hf:[A-Za-z0-9_][\w.-]*(/[A-Za-z0-9_][\w.-]*)?(@[A-Za-z0-9_][\w.-]*)?", re.ASCII)
REVISIONS = ("main", "refs/convert/parquet")


class HubImages(ParquetImages):
    """The training and the test split of one configuration."""

    def __init__(self, data: DataFields) -> None:
        if data.path is not None:
            raise not_allowed("data.path", data.path, f"none for {data.name}, which is downloaded")
        self.data, self.store = data, open_store(str(_downloaded(data.name)))


def check_hub_name(field: str, name: str) -> None:
    """Raise SpecError unless it is hf:owner/name, perhaps with @configuration."""
    if not NAME.fullmatch(name):
        raise not_allowed(field, name, "hf:owner/name or hf:owner/name@configuration")


def _downloaded(name: str) -> Path:
    """The folder with the files of a set. Raises DataError, in one line, for whatever the Hub or the way to it has against that."""
    try:
        import huggingface_hub as hub
        from huggingface_hub.errors import RepositoryNotFoundError
    except ImportError:
        raise DataError(f"data.name: {name} needs huggingface_hub; allowed: pip install 'autosparse[hf]'") from None
    try:
        return _fetch(hub, name)
    except AutosparseError:
        raise
    except RepositoryNotFoundError:
        raise DataError(f"data.name: {name} is no data set of the Hub, or a private one; allowed: one that is, or HF_TOKEN") from None
    except Exception as error:  # of several libraries, and of several versions of them
        if folder := _kept(hub, name):
            return folder
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(
            f"data.name: {name} is not in the cache of the Hub and cannot be downloaded ({reason}); "
            "allowed: a machine that reaches the Hub, or data.name parquet with the files in data.path"
        ) from None


def _fetch(hub: Any, name: str) -> Path:
    from huggingface_hub.errors import RevisionNotFoundError

    for revision in REVISIONS:
        try:
            keys = hub.HfApi().list_repo_files(_repository(name), repo_type="dataset", revision=revision)
        except RevisionNotFoundError:
            continue
        for place in _places(name):
            inside = [key.removeprefix(place) for key in keys if key.startswith(place) and key.endswith(".parquet")]
            if inside:
                split_files(inside, field="data.name", root=name, joint="@")  # one configuration, else nothing is downloaded
                return _snapshot(hub, name, revision, place)
    raise DataError(f"data.name: {name} has no Parquet files on the Hub, nor converted ones; allowed: a set or configuration that has")


def _kept(hub: Any, name: str) -> Path | None:
    """The folder in the cache, where an earlier download lies."""
    for revision in REVISIONS:
        for place in _places(name):
            with contextlib.suppress(Exception):  # not there, or not whole
                folder = _snapshot(hub, name, revision, place, local_files_only=True)
                if any(folder.rglob("*.parquet")):
                    return folder
    return None


def _snapshot(hub: Any, name: str, revision: str, place: str, *, local_files_only: bool = False) -> Path:
    asked = {"repo_type": "dataset", "revision": revision, "allow_patterns": f"{place}*.parquet"}
    return Path(hub.snapshot_download(_repository(name), **asked, local_files_only=local_files_only), place)


def _repository(name: str) -> str:
    return name.removeprefix(PREFIX).partition("@")[0]


def _places(name: str) -> tuple[str, ...]:
    configuration = name.partition("@")[2]
    return (f"{configuration}/", f"data/{configuration}/") if configuration else ("",)
