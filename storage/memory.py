"""How much memory this machine has for us: that of the machine, or less where a container or a batch system sets a limit."""

import os
from pathlib import Path


def machine_memory(root: Path = Path("/")) -> int:
    """Bytes. Limits of control groups count, of either version and of every group above this process."""
    whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([whole, *_limits(root)])


def _limits(root: Path) -> list[int]:
    """The limits of this process's groups: those of a container are at the top of what it sees."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    found = []
    for folder, name in (("sys/fs/cgroup", "memory.max"), ("sys/fs/cgroup/memory", "memory.limit_in_bytes")):
        top = root / folder
        groups = {top / line.split(":", 2)[2].lstrip("/") for line in lines if line.count(":") > 1}
        for group in {place for one in (top, *groups) for place in (one, *one.parents) if place.is_relative_to(top)}:
            try:
                found.append(int((group / name).read_text()))
            except (OSError, ValueError):  # no such group, or `max`
                continue
    return found
