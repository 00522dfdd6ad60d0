"""The manifest of a feature data set: which files belong to it, what is in them, and one digest over all of it."""

import hashlib
from dataclasses import asdict, dataclass
from typing import Any

from autosparse.models.errors import DataError
from autosparse.storage.damage import damaged
from autosparse.storage.plain_json import load_json
from autosparse.storage.store import dump_json

MANIFEST = "_manifest.json"
VERSION = 1


@dataclass(frozen=True, kw_only=True)
class StoredPart:
    """One file of a data set: the weights of one source network and seed."""

    file: str
    size: int  # bytes
    sha256: str
    rows: int
    row_groups: int
    metadata: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """All that readers follow. `schema` lists column names and types; `metadata` is that of the whole data set."""

    schema: dict[str, str]
    metadata: dict[str, Any]
    parts: tuple[StoredPart, ...]

    @property
    def rows(self) -> int:
        """Weights in all parts."""
        return sum(part.rows for part in self.parts)

    @property
    def digest(self) -> str:
        """32 hex digits of a SHA-256 over schema, metadata and the SHA-256 of each file, in order; MLflow takes at most 36."""
        content = {"version": VERSION, "schema": self.schema, "metadata": self.metadata, "files": [part.sha256 for part in self.parts]}
        return hashlib.sha256(dump_json(content)).hexdigest()[:32]

    def dump(self) -> bytes:
        """The manifest file; equal manifests give equal bytes."""
        return dump_json({"version": VERSION, "digest": self.digest, "rows": self.rows, **asdict(self)})

    @classmethod
    def load(cls, data: bytes, source: str) -> "Manifest":
        """The manifest out of its file. Raises DataError, which names `source`, unless it is whole and of this version."""
        try:
            plain = load_json(data)
            version, digest = plain["version"], plain["digest"]
            parts = tuple(StoredPart(**part) for part in plain["parts"])
            manifest = cls(schema=plain["schema"], metadata=plain["metadata"], parts=parts)
            found = manifest.digest
        except (ValueError, KeyError, TypeError) as error:
            raise damaged(source, f"not a manifest ({type(error).__name__}: {error})") from error
        if version != VERSION:
            raise DataError(f"{source}: manifest version {version!r} is not allowed; allowed: {VERSION}")
        if digest != found:
            raise damaged(source, f"digest {digest} is not that of its content, {found}")
        return manifest
