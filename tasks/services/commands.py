"""How each service of `autosparse up` is started: its command, environment and addresses.

Everything listens on loopback, or with credentials on one other address.
"""

import os
import secrets
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from autosparse.models.errors import not_allowed
from autosparse.storage.cpus import machine_slots
from autosparse.tasks.cluster.object_store import OBJECT_STORE_BYTES, object_store_folder
from autosparse.tasks.server_addresses import DATABASES
from autosparse.tasks.settings import ONE_MACHINE_RAY

LOOPBACK = "127.0.0.1"
PREFECT, MLFLOW, RAY, WORKER = "prefect", "mlflow", "ray", "worker"
POOL = "autosparse"
PORTS = {PREFECT: 4200, MLFLOW: 5000, RAY: 6379, "ray-dashboard": 8265, "ray-client": 10001, "ray-agent": 52365, WORKER: 4280}


@dataclass(frozen=True, kw_only=True)
class Launch:
    """A command and its additions to the environment; `address` is for programs, `page` for people, `health` answers 200 once it works."""

    name: str
    command: tuple[str, ...]
    address: str
    health: tuple[str, ...]
    page: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)


def program(name: str) -> str:
    """A program of this virtual environment, whatever PATH says."""
    return str(Path(sys.executable).parent / name)


def url(host: str, port: int) -> str:
    """The address of an HTTP server; IPv6 needs brackets."""
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def prefect_server(ports: Mapping[str, int], *, host: str = LOOPBACK) -> Launch:
    """The Prefect server; its database is PREFECT_API_DATABASE_CONNECTION_URL or SQLite in PREFECT_HOME."""
    port = ports[PREFECT]
    page = url(host, port)
    return Launch(
        name=PREFECT,
        command=(program("prefect"), "server", "start", "--host", host, "--port", str(port)),
        address=f"{page}/api",
        page=page,
        health=(f"{page}/api/health",),
        environment={
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_UI_URL": page,  # for links in messages
            # in memory, the default, a restart would lose who holds which slot
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
            # any page open in a browser reaches loopback, and a deployment runs commands
            "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": f"{page},http://localhost:{port}",
            "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true",
        },
    )


def mlflow_server(ports: Mapping[str, int], *, database: str, artifacts: Path, host: str = LOOPBACK, users: Path | None = None) -> Launch:
    """The MLflow server on a SQLAlchemy URL; artifacts lie where a run without the server puts them, so that both can follow each other.

    With `users`, an ini file of MLflow's basic-auth app, it asks for the name and password of the environment, and clients of other
    machines get at artifacts through it.
    """
    if database.partition(":")[0].partition("+")[0] not in DATABASES:  # mlflow's log would show the whole URL
        raise not_allowed("AUTOSPARSE_MLFLOW_DB", database, f"a SQLAlchemy URL of {', '.join(DATABASES)}")
    address = url(host, ports[MLFLOW])
    where = ("--artifacts-destination", artifacts.as_uri())
    if users:
        where += ("--app-name", "basic-auth", "--allowed-hosts", f"{host},{address.removeprefix('http://')}")
    else:
        where += ("--default-artifact-root", artifacts.as_uri())
    quiet = ("--uvicorn-opts", "--no-access-log")
    return Launch(
        name=MLFLOW,
        command=(program("mlflow"), "server", "--host", host, "--port", str(ports[MLFLOW]), "--workers", "1", *where, *quiet),
        address=address,
        page=address,
        health=(f"{address}/health",),
        environment={
            "MLFLOW_BACKEND_STORE_URI": database,  # not an option: it may hold a password, and everybody sees command lines
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # grows in memory
            **(_first_user(users) if users else {}),
        },
    )


def _first_user(users: Path) -> dict[str, str]:
    return {
        "MLFLOW_AUTH_CONFIG_PATH": str(users),
        "MLFLOW_AUTH_ADMIN_USERNAME": os.environ["MLFLOW_TRACKING_USERNAME"],
        "MLFLOW_AUTH_ADMIN_PASSWORD": os.environ["MLFLOW_TRACKING_PASSWORD"],
        # signs the form for new users; another one after a restart costs an open form
        "MLFLOW_FLASK_SERVER_SECRET_KEY": os.environ.get("MLFLOW_FLASK_SERVER_SECRET_KEY") or secrets.token_hex(32),
    }


def ray_environment(token: Path | None) -> dict[str, str]:
    """What the head and every process that connects to it need: loopback as the node's address, and the token of its owner.

    Without a token file the token is the RAY_AUTH_TOKEN of whoever connects, from any machine.
    """
    if token is None:
        return {"RAY_AUTH_MODE": "token"}
    return {
        **ONE_MACHINE_RAY,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
    }


def ray_head(ports: Mapping[str, int], *, folder: str, token: Path | None, host: str = LOOPBACK) -> Launch:
    """A Ray head whose sessions lie in `folder` (short: socket paths have 107 bytes at most), apart from other Ray clusters."""
    options = {
        "--node-ip-address": host,
        "--port": ports[RAY],
        "--dashboard-host": host,
        "--dashboard-port": ports["ray-dashboard"],
        "--ray-client-server-port": ports["ray-client"],
        "--dashboard-agent-listen-port": ports["ray-agent"],
        "--min-worker-port": 0,  # any that is free: the fixed range collides with a second cluster
        "--max-worker-port": 0,
        "--num-cpus": machine_slots(),
        "--object-store-memory": OBJECT_STORE_BYTES,
        **({"--plasma-directory": place} if (place := object_store_folder(folder)) else {}),
        "--include-log-monitor": "false",  # copies logs of workers to drivers; ours report events
    }
    flags = ("--disable-usage-stats", "--no-monitor", "--block")  # the monitor is the autoscaler's
    pairs = tuple(str(part) for pair in options.items() for part in pair)
    return Launch(
        name=RAY,
        command=(program("ray"), "start", "--head", *pairs, *flags),
        address=url(host, ports[RAY]).removeprefix("http://"),
        page=url(host, ports["ray-dashboard"]),
        health=(f"{url(host, ports['ray-agent'])}/api/healthz", f"{url(host, ports['ray-dashboard'])}/api/gcs_healthz"),
        # its own folder, where its own processes look for its address: they would follow the file of any other cluster in /tmp
        environment={**ray_environment(token), "RAY_TMPDIR": folder},
    )


def prefect_worker(ports: Mapping[str, int], *, api: str, environment: Mapping[str, str]) -> Launch:
    """The process worker; `environment` is passed on to the flows it runs."""
    # no --limit: with one, a run that is retried before its dead process is cleared away ends the whole worker (Prefect 3.8.8);
    # how many run at once is the work pool's limit
    options = ("--pool", POOL, "--type", "process", "--name", f"{POOL}-local", "--with-healthcheck")
    return Launch(
        name=WORKER,
        command=(program("prefect"), "--no-prompt", "worker", "start", *options),
        address=api,
        health=(f"http://{LOOPBACK}:{ports[WORKER]}/health",),
        environment={
            "PREFECT_WORKER_QUERY_SECONDS": "3",
            "PREFECT_WORKER_WEBSERVER_HOST": LOOPBACK,
            "PREFECT_WORKER_WEBSERVER_PORT": str(ports[WORKER]),
            **environment,
            "PREFECT_API_URL": api,
        },
    )
