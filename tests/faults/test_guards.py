"""What is refused before anything starts: jobs that fit nowhere, runs begun with other versions."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autosparse.flows.recipes import smoke
from autosparse.models.errors import ConflictError
from autosparse.models.specs.fields import fingerprint, override, to_plain
from autosparse.storage.open_store import open_store
from autosparse.storage.paths import RunPaths
from autosparse.tasks.checks.preflight import check_same_versions, versions
from tests.faults.matrix import fault
from tests.faults.runs import CHANGES, RUN, SMALL, processes_of, result, run

Typed = Callable[..., subprocess.CompletedProcess[str]]
SPEC = f"storage/runs/{RUN}/spec.json"


@fault(23, "64 workers on a smaller machine", "refused in 5 s with exit status 2, nothing started or stored")
def test_a_job_that_fits_nowhere(tmp_path: Path, typed: Typed) -> None:
    before = os.times()
    done = typed(*SMALL, "--set", "irp.job.workers=64", AUTOSPARSE_HOME=str(tmp_path))
    after = os.times()
    assert done.returncode == 2
    assert "irp.job.cpus_per_worker: 64 workers x 1 = 64 is not allowed" in done.stderr
    # not by the clock on the wall: others use this machine too
    assert sum(after[:4]) - sum(before[:4]) < 5
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not processes_of(tmp_path)


@pytest.mark.parametrize("name", ["torch", "ray", "python", "features"])
@fault(
    30,
    "a run is resumed with another torch, Ray, Python or feature version",
    "refused, naming both; nothing started or changed",
    simulated="the recorded version is edited",
)
def test_a_run_begun_with_other_versions(name: str, tmp_path: Path, typed: Typed) -> None:
    spec = override(smoke(), CHANGES)
    record = {"spec": to_plain(spec), "fingerprint": fingerprint(spec), "name": RUN, "versions": {**versions(), name: "1.0"}}
    open_store(str(tmp_path / "storage")).write_json(RunPaths(RUN).spec, record)
    before = (tmp_path / SPEC).read_bytes()
    done = typed(*SMALL, AUTOSPARSE_HOME=str(tmp_path))
    assert done.returncode == 2
    assert f"{name} 1.0, now {name} {versions()[name]};" in done.stderr
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / SPEC]
    assert (tmp_path / SPEC).read_bytes() == before
    assert not processes_of(tmp_path)


def test_a_record_names_every_version_that_was_mixed(tmp_path: Path) -> None:
    store, run_paths, first = open_store(str(tmp_path)), RunPaths(RUN), {**versions(), "ray": "1.0"}
    assert check_same_versions(store, run_paths) == {"versions": versions()}
    store.write_json(run_paths.spec, {"versions": first})
    with pytest.raises(ConflictError, match="ray 1.0, now ray"):
        check_same_versions(store, run_paths)
    mixed = check_same_versions(store, run_paths, force=True)
    assert mixed == {"versions": versions(), "earlier_versions": [first]}
    store.write_json(run_paths.spec, mixed)
    assert check_same_versions(store, run_paths) == mixed, "what was mixed once stays known"


@pytest.mark.services
@pytest.mark.slow
@pytest.mark.timeout(900)
@fault(30, "the same with --force", "the run goes on; its record names both versions", simulated="the recorded version is edited")
def test_a_forced_mix_of_versions(undisturbed: dict[str, Any], tmp_path: Path) -> None:
    home = tmp_path / "home"
    shutil.copytree(undisturbed["home"], home)
    record = json.loads((home / SPEC).read_text())
    assert record["versions"] == versions()
    other = {**versions(), "torch": "1.0"}
    (home / SPEC).write_text(json.dumps({**record, "versions": other}))
    assert run(home).returncode == 2
    done = run(home, "--force", timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    assert all(undisturbed[key] == value for key, value in result(home / "storage").items())
    after = json.loads((home / SPEC).read_text())
    assert (after["versions"], after["earlier_versions"]) == (versions(), [other])
