"""The process group of a job: two real processes meet, and wait for each other on loopback alone where the node is known by it."""

import gc
import json
import os
import subprocess
import sys

import pytest

from autosparse.tasks.cluster import process_group

RANK = """
import json, sys
from datetime import timedelta
import psutil, torch
import torch.distributed as dist
from autosparse.tasks.cluster.process_group import join, open_store

def listening():
    return [one.laddr.ip for one in psutil.Process().net_connections("inet") if one.status == psutil.CONN_LISTEN]

rank, ranks = int(sys.argv[1]), int(sys.argv[2])
timeout = timedelta(seconds=60)
if rank == 0:
    print(json.dumps(open_store(ranks, timeout)), flush=True)
host, port = json.loads(sys.stdin.readline())
join(rank, ranks, host, port, "gloo", timeout)
total = torch.tensor([rank + 1.0])
dist.all_reduce(total)
print(json.dumps({"total": total.item(), "listening": listening()}), flush=True)
dist.barrier()
dist.destroy_process_group()
"""


@pytest.mark.parametrize("ranks", [1, 2])
def test_ranks_meet_on_loopback_and_listen_nowhere_else(ranks: int) -> None:
    environment = {**os.environ, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "OMP_NUM_THREADS": "1"}  # as on one machine
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, str(rank), str(ranks)],
            env=environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for rank in range(ranks)
    ]
    try:
        place = processes[0].stdout.readline()
        assert json.loads(place)[0] == "127.0.0.1"
        for process in processes:
            process.stdin.write(place)
            process.stdin.flush()
        answers = [json.loads(process.communicate(timeout=100)[0].splitlines()[-1]) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert [answer["total"] for answer in answers] == [ranks * (ranks + 1) / 2] * ranks
    assert {address for answer in answers for address in answer["listening"]} == {"127.0.0.1"}


def test_what_a_worker_imports_is_not_looked_at_again() -> None:
    try:
        process_group.import_torch()
        assert gc.isenabled()
        assert gc.get_freeze_count() > 0
        assert "torch._dynamo" in sys.modules
    finally:
        gc.unfreeze()
