"""Shells, homes and networks as people have them: a run works there, or says in one line what to set."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.faults.matrix import fault
from tests.faults.runs import SMALL, processes_of, result
from tests.pipeline.command_line import AUTOSPARSE, environment

Typed = Callable[..., subprocess.CompletedProcess[str]]
DEAD_PROXY = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), "http://127.0.0.1:9")
# without a network but loopback, 64 MiB of shared memory, as a user whom the system does not know
STRANGE = "ip link set lo up && mount -t tmpfs -o size=64m none /dev/shm && exec unshare -U --map-user=12345 --map-group=12345 "
STRANGE += '"$@"'
IN_A_STRANGE_PLACE = ("unshare", "-rnm", "sh", "-c", STRANGE, "sh")


def can_be_made() -> bool:
    """Whether this system lets us make namespaces of users, mounts and networks."""
    if not shutil.which("unshare"):
        return False
    return subprocess.run([*IN_A_STRANGE_PLACE, "true"], capture_output=True).returncode == 0


@pytest.mark.slow
@pytest.mark.services
@pytest.mark.timeout(900)
@fault(
    None,
    "proxies that are dead, no network but loopback, 64 MiB of /dev/shm, no HOME, a user whom the system does not know, a TMPDIR too long "
    "for sockets, blanks and umlauts in the home",
    "the run ends, same bits, one warning that names TMPDIR",
)
def test_a_run_in_a_strange_place(undisturbed: dict[str, Any], tmp_path: Path) -> None:
    if not can_be_made():
        pytest.skip("this system makes no namespaces for us")
    home, temporary = tmp_path / "ü ber", tmp_path / ("t" * 60)
    for folder in (home, temporary):
        folder.mkdir()
    own = environment(home, TMPDIR=str(temporary), **DEAD_PROXY)
    for name in ("HOME", "USER", "LOGNAME"):
        own.pop(name, None)
    command = [*IN_A_STRANGE_PLACE, AUTOSPARSE, *SMALL]
    done = subprocess.run(command, capture_output=True, text=True, env=own, timeout=800, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    warned = done.stderr.splitlines()
    assert [line for line in warned if "TMPDIR" in line] == [line for line in warned if line.startswith("warning: ")], warned
    assert len([line for line in warned if str(temporary) in line]) == 1 and "shm" not in done.stderr
    assert "test accuracy, last epoch" in done.stdout
    assert all(undisturbed[key] == value for key, value in result(home / "storage").items())
    assert processes_of(home) == [] and not (tmp_path / "mlruns").exists()


WRONG = {
    "MLFLOW_TRACKING_URI=./mlruns": (
        "MLflow",
        "MLFLOW_TRACKING_URI: './mlruns' is not allowed; allowed: http(s)://host:port, sqlite:////abs",
    ),
    "AUTOSPARSE_RAY_ADDRESS=127.0.0.1:9": (
        "Ray",
        "ray: nobody listens at 127.0.0.1:9 ([Errno 111] Connection refused); AUTOSPARSE_RAY_ADDRESS",
    ),
    "AUTOSPARSE_HOME=/etc/hostname": (
        "settings",
        "AUTOSPARSE_HOME: /etc/hostname cannot be used as home (File exists); export AUTOSPARSE_HOME=",
    ),
    "PREFECT_API_URL=localhost:4200": ("settings", "PREFECT_API_URL: 'localhost:4200' is not allowed; allowed: http://host:4200/api"),
}


@pytest.mark.parametrize("setting", WRONG)
@fault(
    None,
    "a folder as MLflow, a Ray that is away, a home that is a file, half an address",
    "`run` and `doctor` say the same line; nothing starts",
)
def test_run_and_doctor_say_the_same_line(setting: str, typed: Typed, clean_settings: Path) -> None:
    check, line = WRONG[setting]
    name, _, value = setting.partition("=")
    done = typed("run", "--recipe", "smoke", **{name: value})
    assert done.returncode == 2 and not done.stdout, done
    (said,) = done.stderr.splitlines()
    assert said.startswith(f"error: {line}")
    assert not (clean_settings / "storage").exists() and not (clean_settings / "prefect").exists()
    looked = typed("doctor", "--json", **{name: value})
    assert looked.returncode == 1, looked
    rows = {row["check"]: row for row in json.loads(looked.stdout)}
    assert rows[check]["state"] == "wrong" and f"error: {rows[check]['said']}" == said
    assert [row for row in rows.values() if row["state"] == "wrong"] == [rows[check]]


@pytest.mark.slow
@fault(None, "PREFECT_API_URL of a server that is away", "one line in seconds, before anything starts")
def test_a_prefect_that_is_away(tmp_path: Path) -> None:
    own = environment(tmp_path / "home", PREFECT_API_URL="http://127.0.0.1:9")
    done = subprocess.run([AUTOSPARSE, "run", "--recipe", "smoke"], env=own, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: prefect: http://127.0.0.1:9/api did not answer for ") and "PREFECT_API_URL says where it is" in line


@fault(None, "a user without a home asks for what needs none", "answered; what needs one says so in a line")
def test_without_a_home(tmp_path: Path) -> None:
    unknown = ("unshare", "-U", "--map-user=12345", "--map-group=12345")
    if not shutil.which("unshare") or subprocess.run([*unknown, "true"], capture_output=True).returncode:
        pytest.skip("this system makes no namespaces for us")
    own = {name: value for name, value in environment(tmp_path).items() if name not in ("HOME", "USER", "LOGNAME", "AUTOSPARSE_HOME")}
    done = subprocess.run([*unknown, AUTOSPARSE, "recipes"], env=own, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert done.returncode == 0 and "smoke" in done.stdout, done.stderr
    done = subprocess.run([*unknown, AUTOSPARSE, "show", "x"], env=own, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: AUTOSPARSE_HOME: ~/.autosparse cannot be used as home (") and os.linesep not in line
