"""The process group of a Ray Train job: its ranks meet at the address of rank 0's node and nowhere else.

By itself torch's meeting place, an unguarded store of values, listens on every interface of the machine. Here it is handed a socket
that is bound to the address by which Ray knows the node: loopback, unless the cluster has been given another one.
"""

import ipaddress
import os
import socket
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import psutil
import ray
import ray.util
import torch.distributed as dist
from ray.train.torch import TorchConfig
from ray.train.torch.config import _set_torch_distributed_env_vars, _TorchBackend
from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage]

_store: TCPStore | None = None  # of this worker, where it is rank 0


@dataclass
class NodeTorchConfig(TorchConfig):
    """Ray's configuration of torch, with a process group of ours."""

    @property
    def backend_cls(self) -> type["NodeTorchBackend"]:
        """What Ray Train starts the process group with."""
        return NodeTorchBackend


class NodeTorchBackend(_TorchBackend):
    """Ray's backend of torch; only how the ranks find each other differs."""

    def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
        """Let rank 0 open the store, and every rank join."""
        ranks, timeout = len(worker_group), timedelta(seconds=backend_config.timeout_s)
        host, port = worker_group.execute_single(0, open_store, ranks, timeout)
        worker_group.execute(_set_torch_distributed_env_vars)
        ray.get(
            [
                worker_group.execute_single_async(rank, join, rank, ranks, host, port, backend_config.backend, timeout)
                for rank in range(ranks)
            ]
        )


def open_store(ranks: int, timeout: timedelta) -> tuple[str, int]:
    """Open the store of a group of so many ranks in this worker; where it listens."""
    global _store
    host = ray.util.get_node_ip_address()
    family = socket.AF_INET6 if ipaddress.ip_address(host).version == 6 else socket.AF_INET
    listener = socket.create_server((host, 0), family=family)
    port = listener.getsockname()[1]
    _store = TCPStore(host, port, ranks, True, timeout, wait_for_workers=False, master_listen_fd=listener.detach())
    return host, port


def join(rank: int, ranks: int, host: str, port: int, backend: str, timeout: timedelta) -> None:
    """Become a rank of the group whose store is at `host` and `port`."""
    if ipaddress.ip_address(host).is_loopback:  # otherwise the connections between ranks are for the cluster's settings to choose
        for library in ("GLOO", "NCCL"):
            os.environ[f"{library}_SOCKET_IFNAME"] = _interface(host)
    store = _store if rank == 0 else TCPStore(host, port, ranks, False, timeout)
    dist.init_process_group(backend, store=store, rank=rank, world_size=ranks, timeout=timeout)


def _interface(address: str) -> str:
    return next(name for name, found in psutil.net_if_addrs().items() if address in {one.address for one in found})
