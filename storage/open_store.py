"""From an address to the store that lies there."""

from pathlib import Path

from autosparse.storage.addresses import LOCAL, S3, address_kind
from autosparse.storage.local_store import LocalStore
from autosparse.storage.store import Store


def open_store(root: str) -> Store:
    """The store at `root`: a local folder, made on the first write, or s3://bucket/prefix. Raises SpecError for anything else."""
    if address_kind("storage", root, LOCAL, S3) == S3:
        from autosparse.storage.s3_store import S3Store  # s3fs takes half a second to import

        return S3Store(root.rstrip("/"))
    return LocalStore(str(Path(root).expanduser().absolute()))
