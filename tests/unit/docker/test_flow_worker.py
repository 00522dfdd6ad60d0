"""What docker/start-flow-worker leaves on a real Prefect server; in place of Ray and the worker programs that say how they were called."""

import shutil
import subprocess
from datetime import timedelta
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings

from autosparse.tasks.services import commands as service_commands
from autosparse.tasks.services import prefect_setup
from tests.faults.servers import prefect_server
from tests.pipeline.command_line import ROOT, environment

pytestmark = [pytest.mark.services, pytest.mark.slow]
SCRIPT = ROOT / "docker" / "start-flow-worker"
UNKNOWN_USER = ("unshare", "-U", "--map-user=12345", "--map-group=12345")


def test_its_runs_are_marked_as_crashed_and_its_pool_has_a_limit(tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("ray", "prefect"):
        (programs / name).write_text(f'#!/bin/sh\necho {name} "$@"\n')
        (programs / name).chmod(0o755)
    path = f"{programs}:{Path(service_commands.program('python')).parent}:/usr/bin:/bin"

    empty = tmp_path / "empty"
    empty.mkdir()
    can = shutil.which("unshare") and subprocess.run([*UNKNOWN_USER, "true"], capture_output=True).returncode == 0
    somebody = UNKNOWN_USER if can else ()  # where the system lets us: a user whom it does not know, in an empty home

    def start(**more: str) -> subprocess.CompletedProcess[str]:
        own = environment(empty / "home", PREFECT_API_URL=server.address, AUTOSPARSE_RAY_ADDRESS="head:6379", PATH=path, **more)
        own |= {"HOME": str(empty)}
        for name in ("USER", "LOGNAME"):
            own.pop(name, None)
        return subprocess.run([*somebody, str(SCRIPT)], env=own, cwd=empty, capture_output=True, text=True, timeout=120)

    with prefect_server(tmp_path) as server, temporary_settings({PREFECT_API_URL: server.address}), get_client(sync_client=True) as client:
        refused = start(AUTOSPARSE_RUNS_AT_ONCE="0")
        assert refused.returncode == 1 and "worker start" not in refused.stdout
        assert refused.stderr == "error: AUTOSPARSE_RUNS_AT_ONCE: '0' is not allowed; allowed: a whole number, at least 1\n"
        for limit, more in ((4, {}), (2, {"AUTOSPARSE_RUNS_AT_ONCE": "2"})):
            done = start(**more)
            assert done.returncode == 0, done.stderr
            assert done.stdout.splitlines()[-1] == "prefect worker start --pool autosparse --type process --with-healthcheck"
            assert client.read_work_pool("autosparse").concurrency_limit == limit
            [automation] = client.read_automations_by_name(prefect_setup.ZOMBIES)
            assert (automation.enabled, automation.trigger.within) == (True, timedelta(seconds=540))  # type: ignore[union-attr]
            [deployment] = client.read_deployments()
            assert (deployment.name, deployment.work_pool_name, deployment.global_concurrency_limit) == ("irp", "autosparse", None)
