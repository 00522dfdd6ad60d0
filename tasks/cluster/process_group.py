"""The process group of a Ray Train job: its ranks meet at the address of rank 0's node and nowhere else.

By itself torch's meeting place, an unguarded store of values, listens on every interface of the machine. Here it is handed a socket
that is bound to the address by which Ray knows the node: loopback, unless the cluster has been given another one.

The controller of a job reads this file as well and has no use for torch, whose import takes seconds: workers import it where they use it.
"""

import contextlib
import gc
import ipaddress
import os
import socket
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import psutil
import ray
import ray.util
from ray.exceptions import GetTimeoutError
from ray.train.backend import Backend, BackendConfig

LEAVE_S = 30  # a rank that hangs is killed after it
_store: Any = None  # the TCPStore of this worker, where it is rank 0


@dataclass
class NodeTorchConfig(BackendConfig):
    """How the ranks of a job talk: `backend` is torch's name for it, and no operation takes longer than `timeout_s` seconds."""

    backend: str
    timeout_s: int

    @property
    def backend_cls(self) -> type["NodeTorchBackend"]:
        """What Ray Train starts the process group with."""
        return NodeTorchBackend

    @property
    def train_func_context(self) -> type[AbstractContextManager[Any]]:
        """What a worker's loop runs in: the worker's GPU is the current one."""
        from ray.train.torch.config import TorchConfigContextManager

        return TorchConfigContextManager


class NodeTorchBackend(Backend):
    """As Ray's backend of torch; only how the ranks find each other differs."""

    share_cuda_visible_devices = True  # as torch's collectives want it

    def on_start(self, worker_group: Any, backend_config: NodeTorchConfig) -> None:
        """Let rank 0 open the store, and every rank join."""
        ranks, timeout = len(worker_group), timedelta(seconds=backend_config.timeout_s)
        worker_group.execute(import_torch)
        host, port = worker_group.execute_single(0, open_store, ranks, timeout)
        worker_group.execute(set_variables)
        ray.get(
            [
                worker_group.execute_single_async(rank, join, rank, ranks, host, port, backend_config.backend, timeout)
                for rank in range(ranks)
            ]
        )

    def on_shutdown(self, worker_group: Any, backend_config: NodeTorchConfig) -> None:
        """Let every rank leave the group and give back what it holds of its GPU."""
        with contextlib.suppress(GetTimeoutError):
            ray.get(worker_group.execute_async(leave, len(worker_group) > 1), timeout=LEAVE_S)


def import_torch() -> None:
    """Import torch, and what its first optimizer imports, in this worker.

    That makes half a million objects that stay: Python's collector looks for garbage among them for a fifth of the time, and later for
    a quarter of a second before each arm. It does neither here.
    """
    gc.disable()
    try:
        import torch._dynamo
        import torch.distributed  # noqa: F401
    finally:
        gc.enable()
    gc.freeze()


def open_store(ranks: int, timeout: timedelta) -> tuple[str, int]:
    """Open the store of a group of so many ranks in this worker; where it listens."""
    from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage]

    global _store
    host = ray.util.get_node_ip_address()
    family = socket.AF_INET6 if ipaddress.ip_address(host).version == 6 else socket.AF_INET
    listener = socket.create_server((host, 0), family=family)
    port = listener.getsockname()[1]
    _store = TCPStore(host, port, ranks, True, timeout, wait_for_workers=False, master_listen_fd=listener.detach())
    return host, port


def set_variables() -> None:
    """RANK, WORLD_SIZE and the others by which libraries know where they are."""
    from ray.train.torch.config import _set_torch_distributed_env_vars

    _set_torch_distributed_env_vars()


def join(rank: int, ranks: int, host: str, port: int, backend: str, timeout: timedelta) -> None:
    """Become a rank of the group whose store is at `host` and `port`."""
    import torch.distributed as dist
    from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage]

    if ipaddress.ip_address(host).is_loopback:  # otherwise the connections between ranks are for the cluster's settings to choose
        for library in ("GLOO", "NCCL"):
            os.environ[f"{library}_SOCKET_IFNAME"] = _interface(host)
    store = _store if rank == 0 else TCPStore(host, port, ranks, False, timeout)
    dist.init_process_group(backend, store=store, rank=rank, world_size=ranks, timeout=timeout)


def leave(destroy: bool) -> None:
    """End this rank's part in the group."""
    from ray.train.torch.config import _shutdown_torch

    _shutdown_torch(destroy_process_group=destroy)


def _interface(address: str) -> str:
    return next(name for name, found in psutil.net_if_addrs().items() if address in {one.address for one in found})
