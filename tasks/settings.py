"""Where the services are, from the environment: growing out of the laptop is a matter of settings.

    AUTOSPARSE_HOME         embedded databases, caches and state of `autosparse up` (default ~/.autosparse)
    AUTOSPARSE_STORAGE      local folder or s3://bucket/prefix (default <home>/storage)
    AUTOSPARSE_RAY_ADDRESS  a Ray cluster; without it a local Ray is started for the run
    MLFLOW_TRACKING_URI     an MLflow server; without it SQLite in <home>
    AUTOSPARSE_MLFLOW_DB    the SQLAlchemy URL of the MLflow server that `autosparse up` starts (default SQLite in <home>)
    PREFECT_API_URL         a Prefect server, with or without /api; without it an embedded one on <home>'s database
    AUTOSPARSE_MLFLOW_SECONDS  how long a run waits for an MLflow that went away, where it needs its answer (default 240)
    AUTOSPARSE_SILENCE_SECONDS  after which a deployment run without heartbeat is Crashed (default 540; asked at the first `up`)
    AUTOSPARSE_CODE         the folder of one's own modules, named package.module:object (default: where the command is called)
    AUTOSPARSE_IMAGE_MEMORY  data sets that are larger when decoded are streamed: 8GiB, 500MB (default 1/8 of the memory, at most 4GiB)
    AUTOSPARSE_COMMIT       the commit that reports name, where the code has no .git

What `autosparse up` started stands in between: it is used unless the environment says otherwise.

Addresses are shown and recorded. A name and password in one of them are taken out of it and given to the library that asks for them
(MLFLOW_TRACKING_USERNAME and _PASSWORD, PREFECT_API_AUTH_STRING); those of a database stay, and are left out where it is named.
Proxies of the environment (HTTP_PROXY and others) are for other machines: loopback and what `up` started are excepted from them.
"""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from autosparse.models.errors import not_allowed
from autosparse.storage.addresses import is_local
from autosparse.storage.memory import machine_memory
from autosparse.tasks.home import check_home, home_folder, settle_user
from autosparse.tasks.proxies import spare_local
from autosparse.tasks.server_addresses import settle_addresses

ENVIRONMENT = {
    # nobody phones home
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "RAY_USAGE_STATS_ENABLED": "0",
    "DO_NOT_TRACK": "1",
    # the only model format we load is safetensors
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    # the controller takes one report per poll, and polls every 2 s unless told otherwise
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # a restart of the Prefect server takes longer than the client's usual minute
    "PREFECT_CLIENT_MAX_RETRIES": "8",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    # our own tries look first whether the last one arrived (tasks/tracking/records.py); MLflow's repeat it blindly, for 4 minutes
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "GIT_PYTHON_REFRESH": "quiet",
}


MLFLOW_SECONDS = 240.0
MOST_IMAGE_MEMORY = 4 * 2**30  # they lie there twice while they are copied to where they are used
IMAGE_MEMORY_SHARE = 1 / 8  # several jobs share a machine
BYTES = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
EMBEDDED_PREFECT = "AUTOSPARSE_EMBEDDED_PREFECT"  # the address of a server that lives as long as this run

CODE = "AUTOSPARSE_CODE"
ARTIFACT_ROOT = "_MLFLOW_SERVER_ARTIFACT_ROOT"  # without it a database of MLflow makes a folder mlruns where the command is called
STALE_RAY = "RAY_ADDRESS"  # never read: left over in many shells, and a run would join a cluster that nobody asked for

ONE_MACHINE_RAY = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # else Ray takes the machine's outer address and listens there
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # nobody preempts the only machine: one process less per job
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Addresses of one process; `ray_address` and `prefect_api_url` None mean embedded."""

    home: Path
    storage: str
    ray_address: str | None
    mlflow_uri: str
    prefect_api_url: str | None
    code: Path | None = None
    image_memory: int = MOST_IMAGE_MEMORY
    mlflow_seconds: float = MLFLOW_SECONDS
    environment: Mapping[str, str] = field(default_factory=dict)  # what the services of `up` ask of their users
    ours: frozenset[str] = frozenset()  # addresses that `up` started

    @property
    def cache(self) -> Path:
        """Decoded images, safe to delete at any time."""
        return self.home / "cache"

    @property
    def services_file(self) -> Path:
        """What `autosparse up` started."""
        return self.home / "services.json"

    @property
    def mlflow_artifacts(self) -> Path:
        """Artifacts of the embedded MLflow."""
        return self.home / "mlflow-artifacts"


def load() -> Settings:
    """Read the settings now: environment first, then what `autosparse up` started, then embedded defaults.

    Addresses and exceptions from proxies in the environment are put right. Raises SpecError for a setting that is not allowed.
    """
    settle_addresses(os.environ)
    home = home_folder(os.environ)
    storage = os.environ.get("AUTOSPARSE_STORAGE") or str(home / "storage")
    services = _services(home / "services.json")
    started, ray_address = services.get("addresses", {}), os.environ.get("AUTOSPARSE_RAY_ADDRESS")
    spare_local(os.environ, [urlsplit(one if "://" in one else f"//{one}").hostname or "" for one in started.values()])
    prefect_api_url = os.environ.get("PREFECT_API_URL") or started.get("prefect")
    return Settings(
        home=home,
        storage=str(Path(storage).expanduser().absolute()) if is_local(storage) else storage,
        ray_address=ray_address or started.get("ray"),
        mlflow_uri=os.environ.get("MLFLOW_TRACKING_URI") or started.get("mlflow") or f"sqlite:///{home / 'mlflow.db'}",
        mlflow_seconds=_seconds("AUTOSPARSE_MLFLOW_SECONDS", MLFLOW_SECONDS),
        code=code_folder(),
        image_memory=_image_memory(os.environ.get("AUTOSPARSE_IMAGE_MEMORY")),
        prefect_api_url=None if prefect_api_url == os.environ.get(EMBEDDED_PREFECT) else prefect_api_url,
        environment={} if ray_address else services.get("environment", {}),
        ours=frozenset(started.values()),
    )


def export(settings: Settings) -> None:
    """Put defaults for Prefect, Ray and MLflow into the environment; what is set already stays. Call before importing them.

    Raises SpecError where the home cannot be used.
    """
    check_home(settings.home)
    settle_user(os.environ, settings.home)
    embedded_ray = {} if settings.ray_address else ONE_MACHINE_RAY
    for name, value in {**ENVIRONMENT, **embedded_ray, **settings.environment}.items():
        os.environ.setdefault(name, value)
    if settings.code:
        os.environ.setdefault(CODE, str(settings.code))
    os.environ.pop(STALE_RAY, None)  # Ray's own processes and clients would go there; ours ask for their cluster by name
    os.environ.setdefault("PREFECT_HOME", str(settings.home / "prefect"))
    if not settings.mlflow_uri.startswith("http"):
        os.environ.setdefault(ARTIFACT_ROOT, settings.mlflow_artifacts.as_uri())
    if settings.prefect_api_url:
        os.environ.setdefault("PREFECT_API_URL", settings.prefect_api_url)


def _image_memory(text: str | None) -> int:
    if text is None:
        return min(MOST_IMAGE_MEMORY, int(machine_memory() * IMAGE_MEMORY_SHARE))
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Z]*)", text.strip().upper())
    if not found or found[2] not in BYTES:
        raise not_allowed("AUTOSPARSE_IMAGE_MEMORY", text, "bytes, also with a unit: 8GiB, 500MB")
    return int(float(found[1]) * BYTES[found[2]])


def _seconds(variable: str, default: float) -> float:
    text = os.environ.get(variable) or str(default)
    if not re.fullmatch(r"\d+(\.\d+)?", text):
        raise not_allowed(variable, text, "seconds: 240")
    return float(text)


def code_folder() -> Path | None:
    """Where one's own modules lie: AUTOSPARSE_CODE, else the current folder; None where that was removed."""
    try:
        return Path(os.environ.get(CODE) or Path.cwd()).expanduser().absolute()
    except FileNotFoundError:  # the current folder was removed
        return None


def _services(path: Path) -> dict[str, dict[str, str]]:
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return {}
