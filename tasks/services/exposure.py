"""`autosparse up --expose ADDRESS`: whoever opens the servers to other machines says first who may come in.

    Prefect  PREFECT_SERVER_API_AUTH_STRING=name:password   clients: PREFECT_API_AUTH_STRING
    MLflow   MLFLOW_TRACKING_USERNAME, _PASSWORD            clients: the same; its basic-auth app has this one user
    Ray      RAY_AUTH_TOKEN                                 clients: the same, with RAY_AUTH_MODE=token

All of them come from the environment, and go into no file but the user database of MLflow, which holds a hash.
"""

import ipaddress
import os
from importlib.util import find_spec
from pathlib import Path

import psutil

from autosparse.models.errors import not_allowed

AUTH_STRING = "PREFECT_SERVER_API_AUTH_STRING"
CLIENT_AUTH_STRING = "PREFECT_API_AUTH_STRING"
USERNAME, PASSWORD = "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"
TOKEN = "RAY_AUTH_TOKEN"
LEAST_PASSWORD = 12  # characters: what MLflow asks for


def check_exposure(address: str) -> None:
    """Raise SpecError, one line with all that is missing, unless `address` is this machine's and every server has credentials."""
    try:
        parsed = ipaddress.ip_address(address)
        known = parsed.is_loopback or address in {one.address for found in psutil.net_if_addrs().values() for one in found}
    except ValueError:
        known = False
    if not known:
        raise not_allowed("--expose", address, "an IP address of this machine, one only")
    if missing := _missing():
        raise not_allowed("--expose", address, f"with {', '.join(missing)} beside it in the environment")


def let_clients_in() -> None:
    """Give what talks to a Prefect server of ours the string that the server asks for. Call before Prefect is imported."""
    if AUTH_STRING in os.environ:
        os.environ.setdefault(CLIENT_AUTH_STRING, os.environ[AUTH_STRING])


def write_users(home: Path) -> Path:
    """The configuration of MLflow's basic-auth app, and an empty user database: the only user is the one of this start."""
    database, config = home / "mlflow-users.db", home / "mlflow-users.ini"
    database.unlink(missing_ok=True)  # it would keep the password of an earlier start
    lines = (
        "[mlflow]",
        "default_permission = NO_PERMISSIONS",
        f"database_uri = sqlite:///{database}",
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth",
    )
    config.write_text("\n".join(lines) + "\n")
    return config


def _missing() -> list[str]:
    password = os.environ.get(PASSWORD, "")
    wanted = {
        f"{AUTH_STRING} (name:password)": ":" in os.environ.get(AUTH_STRING, ""),
        USERNAME: bool(os.environ.get(USERNAME)),
        f"{PASSWORD} (at least {LEAST_PASSWORD} characters)": len(password) >= LEAST_PASSWORD,
        TOKEN: bool(os.environ.get(TOKEN)),
        "the package flask-wtf (of mlflow's basic-auth app)": find_spec("flask_wtf") is not None,
    }
    return [name for name, there in wanted.items() if not there]
