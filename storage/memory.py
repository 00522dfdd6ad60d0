"""How much memory this machine has for us: that of the machine, or less where a container or a batch system sets a limit."""

import os
from pathlib import Path

from autosparse.storage.control_groups import limits

FILES = (("sys/fs/cgroup", "memory.max"), ("sys/fs/cgroup/memory", "memory.limit_in_bytes"))  # of version 2, of version 1


def machine_memory(root: Path = Path("/")) -> int:
    """Bytes. Limits of control groups count, of either version and of every group above this process."""
    whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    said = [text for folder, name in FILES for (text,) in limits(root, (folder,), name)]
    return min([whole, *(int(text) for text in said if text.isdecimal())])  # or `max`
