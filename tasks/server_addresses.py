"""Addresses of servers as people write them, and as Prefect and MLflow want them."""

from collections.abc import MutableMapping
from urllib.parse import unquote, urlsplit, urlunsplit

from autosparse.models.errors import not_allowed

MLFLOW, PREFECT = "MLFLOW_TRACKING_URI", "PREFECT_API_URL"
HTTP = ("http", "https")
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
DATABRICKS = ("databricks", "databricks-uc")


def settle_addresses(environment: MutableMapping[str, str]) -> None:
    """Leave addresses of servers in the environment as Prefect and MLflow want them.

    A name and password go where those two look for them, Prefect's address gets its `/api`.
    """
    for variable in (MLFLOW, PREFECT):
        if environment.get(variable, "").startswith("http"):
            _take_out_credentials(environment, variable)
    if environment.get(PREFECT):
        environment[PREFECT] = prefect_api(environment[PREFECT])


def prefect_api(address: str) -> str:
    """The address of Prefect's API: that of its page, or of a folder behind a proxy, gets `/api`; one that has it, as Prefect Cloud's
    (`/api/accounts/X/workspaces/Y`), is left as it is. Raises SpecError for what is no address."""
    parts = urlsplit(address.strip())
    if parts.scheme not in HTTP or not parts.netloc:
        raise not_allowed(PREFECT, address, "http://host:4200/api, or https://api.prefect.cloud/api/accounts/ID/workspaces/ID")
    path = parts.path.rstrip("/")
    if "/api/" not in f"{path}/":
        path = f"{path}/api"
    return urlunsplit((parts.scheme, parts.netloc, path, "", ""))


def check_mlflow_address(address: str) -> None:
    """Raise SpecError for what MLflow 3 takes no results at: a folder, `file:`, an unknown scheme."""
    scheme = address.partition(":")[0].partition("+")[0].lower()
    known = (scheme in HTTP and urlsplit(address).netloc) or (scheme in DATABASES and "://" in address) or scheme in DATABRICKS
    if not known:
        allowed = f"http(s)://host:port, sqlite:////absolute/file.db, or another SQLAlchemy URL ({', '.join(DATABASES[1:])})"
        raise not_allowed(MLFLOW, address, f"{allowed}; unset it for SQLite in the home")


def _take_out_credentials(environment: MutableMapping[str, str], variable: str) -> None:
    address = environment[variable]
    login, at, _ = urlsplit(address).netloc.rpartition("@")
    if not at:
        return
    environment[variable] = address.replace(f"{login}@", "", 1)
    name, _, password = (unquote(part) for part in login.partition(":"))
    if variable == MLFLOW:
        environment.setdefault("MLFLOW_TRACKING_USERNAME", name)
        environment.setdefault("MLFLOW_TRACKING_PASSWORD", password)
    else:
        environment.setdefault("PREFECT_API_AUTH_STRING", f"{name}:{password}")
