"""Each check of `autosparse doctor`, on places made as they are found."""

import email.utils
import os
import socket
import time
from dataclasses import replace
from pathlib import Path

import pytest

from autosparse.models.errors import AutosparseError, ServiceError, SpecError
from autosparse.tasks import settings
from autosparse.tasks.doctor import before_a_run, folders, machine, packages, servers
from autosparse.tasks.doctor.examine import CHECKS, examine
from autosparse.tasks.doctor.finding import OK, WARNING, WRONG, ok
from tests.small_server import small_server

GIB = 2**30


@pytest.fixture
def here(clean_settings: Path) -> settings.Settings:
    clean_settings.mkdir()
    return settings.load()


def group(root: Path, **files: str) -> Path:
    """A machine whose only control group has these files."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text("0::/\n")
    (root / "sys/fs/cgroup").mkdir(parents=True)
    for name, text in files.items():
        (root / "sys/fs/cgroup" / name.replace("_", ".")).write_text(text)
    return root


def test_half_a_cpu_counts_as_one_with_a_warning(here: settings.Settings, tmp_path: Path) -> None:
    found = machine.cpus(here, group(tmp_path / "half", cpu_max="50000 100000"))
    assert found.state == WARNING
    assert found.said == "CPUs: 0.5, by the limit of a container or a batch system; it counts as one, and jobs take 2.0 times as long"
    assert machine.cpus(here, group(tmp_path / "one", cpu_max="100000 100000")).said == "1"
    assert machine.cpus(here, tmp_path / "none").state == OK


def test_little_memory_is_a_warning(here: settings.Settings, tmp_path: Path) -> None:
    assert machine.memory(here, group(tmp_path / "a", memory_max=str(GIB))).said == "memory: 1.0 GiB; a run with its services needs about 3"
    assert machine.memory(here, group(tmp_path / "b", memory_max=str(3 * GIB))).state == OK


def test_a_folder_without_room_for_ray_is_named_with_the_one_that_is_used(here: settings.Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "/tmp/" + "j" * 70)
    found = machine.temporary(here)
    assert found.state == WARNING
    assert found.said.startswith(f"TMPDIR: {os.environ['TMPDIR']} has a name of 75 bytes, and Ray's sockets leave room for 19; /")
    assert found.said.endswith(" is used for Ray")


def test_little_shared_memory_is_a_warning(here: settings.Settings) -> None:
    found = machine.object_store(here, Path("/nowhere"))
    assert found.said == "/nowhere: 0 MiB free; Ray's objects may take 200, and go to Ray's folder instead"
    assert found.mend == "docker run --shm-size=1g"


@pytest.mark.parametrize(
    ("mounts", "folder", "kind", "state"),
    [
        ("/dev/sda / ext4 rw 0 0\nserver:/home /home nfs4 rw 0 0\n", "/home/me/.autosparse", "nfs4", WARNING),
        ("/dev/sda / ext4 rw 0 0\nserver:/home /home nfs4 rw 0 0\n", "/homes/me", "ext4", OK),
        (
            "/dev/sda / ext4 rw 0 0\nserver:/x /my\\040files lustre rw 0 0\n/dev/sdb /my\\040files/a xfs rw 0 0\n",
            "/my files/b",
            "lustre",
            WARNING,
        ),
        ("", "/home/me", "unknown", OK),
    ],
)
def test_a_home_on_a_network_is_a_warning(mounts: str, folder: str, kind: str, state: str, here: settings.Settings, tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/mounts").write_text(mounts)
    found = folders.home_disk(replace(here, home=Path(folder)), tmp_path)
    assert found.state == state and kind in found.said


def test_a_storage_is_written_read_and_left_as_it_was(here: settings.Settings, tmp_path: Path) -> None:
    store = replace(here, storage=str(tmp_path / "storage"))
    assert folders.storage(store).state == OK
    assert not [path for path in (tmp_path / "storage").rglob("*") if path.is_file()]
    (tmp_path / "file").touch()
    with pytest.raises(AutosparseError, match=r"^/[^\n]*file/doctor/[0-9a-f]{32}: Not a directory$"):
        folders.storage(replace(here, storage=str(tmp_path / "file")))


def test_an_s3_without_credentials_or_server_is_one_line(here: settings.Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with small_server(lambda _: (403, "no")) as (address, _):
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        (row,) = examine(replace(here, storage="s3://bucket/prefix"), {"storage": folders.storage})
        assert row.state == WRONG and row.said.endswith(f" access denied by {address} (NoCredentialsError)")
        assert row.mend == "export AWS_ACCESS_KEY_ID=... AWS_SECRET_ACCESS_KEY=...  # or AWS_PROFILE"


def test_code_that_is_no_folder_is_a_warning(here: settings.Settings, tmp_path: Path) -> None:
    assert folders.code(replace(here, code=tmp_path)).state == OK
    assert "is no folder" in folders.code(replace(here, code=tmp_path / "none")).said
    assert folders.code(replace(here, code=None)).state == WARNING


def test_packages_are_held_against_what_is_asked_for(here: settings.Settings) -> None:
    assert packages.packages(here).state == OK and packages.python(here).state == OK
    wanted = ["torch>=99", "nonexistent-package>1 ; extra == 'pipeline'", "not-for-this>1 ; extra == 'test'", "numpy>=1"]
    with pytest.raises(ServiceError) as error:
        packages.packages(here, wanted)
    said = str(error.value)
    assert "(wanted >=99)" in said and "nonexistent-package is missing (wanted >1)" in said
    assert "not-for-this" not in said and "numpy" not in said and said.endswith("; pip install 'autosparse[pipeline]'")


@pytest.mark.parametrize(("ahead", "state"), [(0, OK), (-70, WARNING), (300, WARNING), (3600, WRONG)])
def test_the_clock_is_held_against_those_of_servers(ahead: int, state: str, here: settings.Settings) -> None:
    date = email.utils.formatdate(time.time() - ahead, usegmt=True)
    with small_server(lambda _: (404, "no"), date=date) as (address, _):
        (row,) = examine(replace(here, prefect_api_url=f"{address}/api"), {"clock": servers.clock})
    assert row.state == state, row
    if ahead:
        assert f"s {'ahead of' if ahead > 0 else 'behind'} {address}/api" in row.said and row.mend == "timedatectl set-ntp true"
        assert abs(int(row.said.split()[1]) - abs(ahead)) <= 2
    assert servers.clock(here).said == "no server to compare with"


def test_a_ray_that_is_not_there_is_said_at_once(here: settings.Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as there:
        servers.ray(replace(here, ray_address=f"127.0.0.1:{there.getsockname()[1]}"))
    start = time.monotonic()
    with pytest.raises(ServiceError, match=r"^ray: nobody listens at 127\.0\.0\.1:9 \([^\n]*refused\); AUTOSPARSE_RAY_ADDRESS says"):
        servers.ray(replace(here, ray_address="127.0.0.1:9"))
    assert time.monotonic() - start < 3
    for address in ("head", "head:", ":6379", "head:99999", "head:port"):
        with pytest.raises(SpecError, match=r"^AUTOSPARSE_RAY_ADDRESS: .* allowed: host:6379"):
            servers.ray(replace(here, ray_address=address))
    assert servers.ray(replace(here, ray_address="auto")).state == OK


def test_a_taken_port_is_said(here: settings.Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as there:
        port = there.getsockname()[1]
        monkeypatch.setattr(servers, "PORTS", {"prefect": port})
        assert f"{port} -> " in servers.ports(here).said
    here.services_file.write_text("{")
    with pytest.raises(ServiceError, match="services.json is damaged"):
        servers.ports(here)


def test_a_ray_address_left_over_is_a_warning(here: settings.Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    assert servers.stale_ray(here).state == OK
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert servers.stale_ray(here).mend == "unset RAY_ADDRESS"


def test_a_check_that_hangs_or_breaks_hides_no_other(here: settings.Settings) -> None:
    def hang(_: settings.Settings) -> None:
        time.sleep(60)

    def fall(_: settings.Settings) -> None:
        raise KeyError("x")

    def lack(_: settings.Settings) -> None:
        raise ModuleNotFoundError("no", name="mlflow")

    start = time.monotonic()
    rows = list(examine(here, {"a": hang, "b": fall, "c": lack, "d": lambda _: ok("fine")}, seconds=0.5))  # type: ignore[dict-item]
    assert time.monotonic() - start < 3
    assert [row.state for row in rows] == [WRONG, WRONG, WRONG, OK]
    assert rows[0].said == "a: no answer within 0.5 s; where the machine is busy, look again"
    assert rows[1].said == "b: could not be looked at (KeyError: 'x')"
    assert rows[2].mend == "pip install 'autosparse[pipeline]'"


@pytest.mark.parametrize(
    ("check", "change"),
    [
        ("MLflow", {"mlflow_uri": "./mlruns"}),
        ("Ray", {"ray_address": "127.0.0.1:9"}),
    ],
)
def test_a_run_ends_with_the_line_of_the_doctor(check: str, change: dict[str, str], here: settings.Settings) -> None:
    wrong = replace(here, **change)  # type: ignore[arg-type]
    (row,) = examine(wrong, {check: CHECKS[check]})
    with pytest.raises(AutosparseError) as error:
        before_a_run.check_services(wrong)
    assert row.state == WRONG and row.said == str(error.value)


@pytest.mark.parametrize(
    "answer",
    [(401, "no"), (200, {"experiment": {"experiment_id": "7", "name": "autosparse", "lifecycle_stage": "deleted"}})],
)
def test_a_run_says_of_mlflow_what_the_doctor_says(
    answer: tuple[int, object], here: settings.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with small_server(lambda _: answer) as (address, _):
        there = replace(here, mlflow_uri=address)
        (row,) = examine(there, {"MLflow": servers.mlflow})
        with pytest.raises(AutosparseError) as error:
            before_a_run.check_services(there)
    assert row.state == WRONG and row.said == str(error.value) and row.mend
    if answer[0] == 200:
        assert row.mend == f"MLFLOW_TRACKING_URI={address} mlflow experiments restore --experiment-id 7"
