import os
from pathlib import Path

import pytest

from autosparse.storage.cpus import machine_cpus, machine_slots

OWN = len(os.sched_getaffinity(0))
HALF, LONG = "50000 100000\n", "10000000 100000\n"


def machine(root: Path, groups: str, files: dict[str, str]) -> Path:
    for place, text in {"proc/self/cgroup": groups, **{f"sys/fs/cgroup/{name}": text for name, text in files.items()}}.items():
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        (root / place).write_text(text)
    return root


@pytest.mark.parametrize(
    ("groups", "files", "cpus", "slots"),
    [
        ("0::/\n", {"cpu.max": HALF}, 0.5, 1),  # docker run --cpus=0.5
        ("0::/\n", {"cpu.max": "max 100000\n"}, OWN, OWN),
        ("0::/\n", {"cpu.max": "max\n"}, OWN, OWN),
        ("0::/\n", {"cpu.max": LONG}, OWN, OWN),  # more than there are
        ("0::/job_1/step\n", {"job_1/cpu.max": "25000 50000\n", "job_1/step/cpu.max": "max 100000\n"}, 0.5, 1),
        ("0::/job_1\n", {"job_2/cpu.max": HALF}, OWN, OWN),
        ("2:cpu,cpuacct:/docker/x\n", {"cpu/docker/x/cpu.cfs_quota_us": "75000\n", "cpu/docker/x/cpu.cfs_period_us": "100000\n"}, 0.75, 1),
        ("2:cpu,cpuacct:/x\n", {"cpu,cpuacct/x/cpu.cfs_quota_us": "-1\n", "cpu,cpuacct/x/cpu.cfs_period_us": "100000\n"}, OWN, OWN),
        ("2:cpu:/x\n", {"cpu/x/cpu.cfs_quota_us": "75000\n"}, OWN, OWN),  # a quota of nothing
        ("2:cpu:/x\n", {"cpu/x/cpu.cfs_quota_us": "100000\n", "cpu/x/cpu.cfs_period_us": "0\n"}, OWN, OWN),
    ],
)
def test_quotas_of_control_groups_count(tmp_path: Path, groups: str, files: dict[str, str], cpus: float, slots: int) -> None:
    root = machine(tmp_path, groups, files)
    assert machine_cpus(root) == cpus
    assert machine_slots(root) == slots


def test_what_is_more_than_one_is_cut_to_whole_cpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3, 4, 5, 6, 7})
    root = machine(tmp_path, "0::/\n", {"cpu.max": "350000 100000\n"})
    assert (machine_cpus(root), machine_slots(root)) == (3.5, 3)


def test_a_process_that_may_use_one_cpu_has_one(tmp_path: Path) -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})  # as taskset and SLURM do
        assert machine_cpus(tmp_path) == 1.0
    finally:
        os.sched_setaffinity(0, before)
