"""A machine of a Ray cluster goes in the middle of a round."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from ray.cluster_utils import Cluster as Nodes

from autosparse.tasks.services.commands import PORTS
from autosparse.tasks.services.processes import free_port
from autosparse.tasks.settings import ONE_MACHINE_RAY
from tests.faults.jobs import MID_EPOCH, driver, fresh, printed, workers_import_ours
from tests.faults.matrix import fault
from tests.pipeline.command_line import title_of, wait_for

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]
STEP = "autosparse.models.training.loop:train_step"
PATIENCE = 300
LOOPBACK = {"node_ip_address": "127.0.0.1"}


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    """A head without room for workers, and two nodes with room for one each."""
    folder = tempfile.mkdtemp(prefix="autosparse-")  # sockets need short paths
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", folder)
        workers_import_ours(patch)
        # a taken port would leave Ray without a dashboard and with an open socket
        dashboard = {"dashboard_host": "127.0.0.1", "dashboard_port": free_port(PORTS["ray-dashboard"])}
        found = Nodes(initialize_head=True, head_node_args={"num_cpus": 0, **dashboard, **LOOPBACK})
        try:
            for _ in range(2):
                found.add_node(num_cpus=1, **LOOPBACK)
            yield found
        finally:
            found.shutdown()
            shutil.rmtree(folder, ignore_errors=True)


def node_of_the_worker(nodes: Nodes) -> Any:
    """The node on which a Ray Train worker runs."""
    for node in nodes.worker_nodes:
        raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
        if any("RayTrainWorker" in title_of(child) for child in raylet.children(recursive=True)):
            return node
    raise AssertionError("no worker on any node")


@fault(
    1,
    "the machine of a worker goes in mid-epoch",
    "the round ends on another machine, same bits",
    simulated="two Ray nodes on one machine, one of them killed",
)
def test_a_lost_node(nodes: Nodes, tmp_path: Path) -> None:
    one, other, struck = fresh(tmp_path / "one"), fresh(tmp_path / "other"), tmp_path / "struck"
    hang = {"where": STEP, "call": MID_EPOCH, "do": "hang", "until": str(one.snapshot), "once": str(struck)}
    joined = {"AUTOSPARSE_RAY_ADDRESS": nodes.address, **ONE_MACHINE_RAY}
    with driver(tmp_path, one, hang, **joined) as process:
        wait_for(lambda: struck.exists() and one.snapshot.exists(), PATIENCE)
        nodes.remove_node(node_of_the_worker(nodes), allow_graceful=False)
        found = printed(process, PATIENCE)
    with driver(tmp_path, other, **joined) as process:
        assert found["result"] == printed(process, PATIENCE)["result"]
    assert (found["restarts"], found["epochs"]) == (1, [0, 1, 2])
