import os
from pathlib import Path

import pytest

from autosparse.storage.memory import machine_memory

WHOLE = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def machine(root: Path, groups: str, limits: dict[str, str]) -> Path:
    for place, text in {"proc/self/cgroup": groups, **{f"sys/fs/cgroup/{name}": text for name, text in limits.items()}}.items():
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        (root / place).write_text(text)
    return root


@pytest.mark.parametrize(
    ("groups", "limits", "expected"),
    [
        ("0::/\n", {"memory.max": "5000000\n"}, 5_000_000),  # a container sees its own group at the top
        ("0::/\n", {"memory.max": "max\n"}, WHOLE),
        ("0::/job_1/step\n", {"job_1/memory.max": "7000\n", "job_1/step/memory.max": "max\n"}, 7000),  # a batch system limits a group above
        ("0::/job_1\n", {"job_2/memory.max": "7000\n"}, WHOLE),
        ("4:memory:/docker/x\n1:cpu:/y\n", {"memory/docker/x/memory.limit_in_bytes": "9000\n"}, 9000),
        ("4:memory:/x\n", {"memory/x/memory.limit_in_bytes": "9223372036854771712\n"}, WHOLE),
    ],
)
def test_limits_of_control_groups_count(tmp_path: Path, groups: str, limits: dict[str, str], expected: int) -> None:
    assert machine_memory(machine(tmp_path, groups, limits)) == expected


def test_without_control_groups_it_is_that_of_the_machine(tmp_path: Path) -> None:
    assert machine_memory(tmp_path) == WHOLE and 0 < machine_memory() <= WHOLE
