"""How many CPUs this process may use: those of the machine, or fewer where a container or a batch system sets a limit."""

import os
from pathlib import Path

from autosparse.storage.control_groups import limits

FOLDERS_1 = ("sys/fs/cgroup/cpu", "sys/fs/cgroup/cpu,cpuacct", "sys/fs/cgroup/cpuacct,cpu")


def machine_cpus(root: Path = Path("/")) -> float:
    """CPUs, maybe half of one. The process's own set counts (taskset, SLURM) and quotas of control groups, of either version."""
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [tuple(text.split()) for (text,) in limits(root, ("sys/fs/cgroup",), "cpu.max")]
    quotas += list(limits(root, FOLDERS_1, "cpu.cfs_quota_us", "cpu.cfs_period_us"))
    return min([float(own), *(int(pair[0]) / int(pair[1]) for pair in quotas if len(pair) == 2 and all(map(_counts, pair)))])


def machine_slots(root: Path = Path("/")) -> int:
    """Whole CPUs to give to jobs; less than one counts as one, or nothing could run."""
    return max(1, int(machine_cpus(root)))


def _counts(text: str) -> bool:
    return text.isdecimal() and int(text) > 0  # no limit is `max` in version 2, -1 in version 1
