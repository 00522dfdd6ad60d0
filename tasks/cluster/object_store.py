"""Where the object store of a Ray of ours lies: in shared memory, or in Ray's folder where there is too little of it (Docker: 64 MiB)."""

import shutil
from pathlib import Path

OBJECT_STORE_BYTES = 200 * 2**20  # jobs pass addresses, not tensors
SHARED_MEMORY = Path("/dev/shm")


def object_store_folder(folder: str, shared: Path = SHARED_MEMORY) -> str | None:
    """`folder`, where shared memory has no room for the object store; None where it has. By itself Ray would warn of it at each start."""
    return None if shared_memory(shared) >= OBJECT_STORE_BYTES else folder


def shared_memory(shared: Path = SHARED_MEMORY) -> int:
    """Bytes that are free there; 0 where there is none."""
    try:
        return shutil.disk_usage(shared).free
    except OSError:
        return 0
