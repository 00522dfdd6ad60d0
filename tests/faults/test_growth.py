"""A Ray that begins with nothing and grows: Ray's own autoscaler, whose nodes are processes of this machine."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from autosparse.tasks.limits import GROW
from autosparse.tasks.services import commands as service_commands
from autosparse.tasks.services import processes as service_processes
from autosparse.tasks.services.commands import LOOPBACK, Launch
from autosparse.tasks.settings import ONE_MACHINE_RAY
from tests.faults.matrix import fault
from tests.pipeline.command_line import environment

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]
PORTS_FROM = 30000 + os.getpid() % 1000 * 10
DRIVER = """
import sys
from autosparse.models.errors import AutosparseError
from autosparse.models.specs.run_specs import JobSpec
from autosparse.tasks import settings
from autosparse.tasks.cluster.connection import connected
with connected(settings.load(), tell=lambda line: print(line, flush=True)) as cluster:
    job = JobSpec(cpus_per_worker=int(sys.argv[1]))
    print("slots", cluster.slots(job), cluster.cpus, flush=True)
    try:
        with cluster.turn(job):
            print("grown", cluster.slots(job), cluster.cpus, cluster.runs(), flush=True)
    except AutosparseError as error:
        print(type(error).__name__, error)
"""
TYPES = {
    "head": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
    "cpu": {"resources": {"CPU": 1, "object_store_memory": 100 * 2**20}, "node_config": {}, "min_workers": 0, "max_workers": 2},
}
LISTS = ("setup_commands", "head_setup_commands", "worker_setup_commands", "initialization_commands", "cluster_synced_files")
MORE = ("head_start_ray_commands", "worker_start_ray_commands", "rsync_exclude", "rsync_filter")


@pytest.fixture
def growing() -> Iterator[dict[str, str]]:
    """Where it is, and what a driver needs: a head without CPUs, whose autoscaler starts nodes of one CPU, two at most."""
    folder = Path(tempfile.mkdtemp(prefix="autosparse-"))  # sockets need short paths
    port, dashboard, client = (service_processes.free_port(PORTS_FROM + number * 3) for number in range(3))
    config = {"cluster_name": "growing", "max_workers": 2, "upscaling_speed": 1.0, "idle_timeout_minutes": 5, "auth": {}, "docker": {}}
    config |= {"provider": {"type": "fake_multinode", "gcs_address": f"{LOOPBACK}:{port}"}, "file_mounts": {}}
    config |= {"head_node_type": "head", "available_node_types": TYPES, "file_mounts_sync_continuously": False}
    config |= {name: [] for name in (*LISTS, *MORE)}
    (folder / "config.json").write_text(json.dumps(config))
    own = {**ONE_MACHINE_RAY, "RAY_TMPDIR": str(folder), "RAY_AUTH_MODE": "disabled"}
    options = ("--num-cpus=0", f"--port={port}", f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}")
    options += (f"--node-ip-address={LOOPBACK}", "--object-store-memory=100000000", f"--autoscaling-config={folder}/config.json", "--block")
    launch = Launch(
        name="growing",
        command=(service_commands.program("ray"), "start", "--head", *options),
        address=f"{LOOPBACK}:{port}",
        health=(f"http://{LOOPBACK}:{dashboard}/api/gcs_healthz",),
        environment={**own, "RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1"},
    )
    process = service_processes.start(launch, environment=environment(folder), folder=folder)
    try:
        service_processes.await_answering([process], 240)
        yield {"AUTOSPARSE_RAY_ADDRESS": launch.address, **own}
    finally:
        service_processes.stop([process])
        shutil.rmtree(folder, ignore_errors=True)


def drive(home: Path, cpus: int, there: dict[str, str], **more: str) -> list[str]:
    own = environment(home, **there, **more)
    done = subprocess.run([sys.executable, "-c", DRIVER, str(cpus)], env=own, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()


@fault(
    None,
    "a cluster that scales from zero",
    "the run says that it waits for it to grow, and goes on once it has",
    simulated="nodes are processes",
)
def test_a_cluster_that_scales_from_zero(growing: dict[str, str], tmp_path: Path) -> None:
    slots, *waits, grown = drive(tmp_path, 1, growing, **{GROW: "300"})
    assert slots == "slots 1 0"
    assert waits[0] == "waiting: the cluster grows to 1 x 1 CPU, 0 of at most 300 s"
    assert grown == "grown 1 1.0 1"
    (line,) = [line for line in drive(tmp_path, 2, growing, **{GROW: "5"}) if "Error" in line]  # no node has two
    assert (
        line == f"CapacityError job: 1 workers x 2 CPU is not allowed; allowed: what the cluster has, which has not grown in 5 s ({GROW})"
    )
