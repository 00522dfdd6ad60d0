"""Servers and the way to them: proxies, Prefect, MLflow, Ray, the ports of `autosparse up`, and the clocks of those that answer."""

import os
import time
import urllib.error
from email.utils import parsedate_to_datetime

from autosparse.models.errors import ServiceError, without_password
from autosparse.storage.addresses import is_local
from autosparse.tasks.cluster.ray_address import check_ray
from autosparse.tasks.doctor.finding import Finding, ok, warning
from autosparse.tasks.proxies import LOOPBACK, opener, proxies, spared
from autosparse.tasks.services.commands import LOOPBACK as HOST
from autosparse.tasks.services.commands import PORTS
from autosparse.tasks.services.prefect_answer import check_prefect
from autosparse.tasks.services.processes import free_port
from autosparse.tasks.services.up_down import read_state
from autosparse.tasks.settings import STALE_RAY, Settings

PATIENCE_SECONDS = 5.0
SQLITE = "sqlite:///"
AWS = "https://s3.amazonaws.com"
SKEW_SECONDS, LIMIT_SECONDS = 60, 600  # S3 refuses signatures that are a quarter of an hour off


def network(settings: Settings) -> Finding:
    """Which servers are asked through a proxy; loopback never is."""
    found = proxies(os.environ)
    if not found:
        return ok("none")
    through = [one for one in _addresses(settings) if not spared(os.environ, one)]
    said = ", ".join(f"{name}={without_password(value)}" for name, value in found.items())
    return ok(f"{said}; not for {os.environ.get('no_proxy')}" + (f"; for {', '.join(through)}" if through else ""))


def loopback(settings: Settings) -> Finding:
    """Whether servers can listen there, and where `localhost` leads. Raises ServiceError."""
    import socket

    try:
        with socket.create_server((HOST, 0)):
            pass
    except OSError as error:
        raise ServiceError(f"loopback: nothing can listen on {HOST} ({error}); ip link set lo up", {"mend": "ip link set lo up"}) from error
    try:
        led = sorted({str(row[4][0]) for row in socket.getaddrinfo("localhost", None)})
    except OSError:
        return warning("loopback: the name localhost leads nowhere; other programs may need it", "echo '127.0.0.1 localhost' >> /etc/hosts")
    if HOST not in led:
        return warning(f"loopback: localhost is {', '.join(led)} alone; servers listen on {HOST}: write that in addresses")
    return ok(f"{HOST}, localhost is {', '.join(one for one in led if one in LOOPBACK)}")


def prefect(settings: Settings) -> Finding:
    """The server of PREFECT_API_URL or of `up`. Raises ServiceError."""
    check_prefect(settings.prefect_api_url, ours=settings.prefect_api_url in settings.ours, seconds=PATIENCE_SECONDS)
    return ok(settings.prefect_api_url or "embedded")


def mlflow(settings: Settings) -> Finding:
    """The server or database, and whether our experiment was deleted there. Raises ServiceError, SpecError or ConflictError."""
    from autosparse.tasks.server_addresses import check_mlflow_address

    check_mlflow_address(settings.mlflow_uri)
    if settings.mlflow_uri.startswith(SQLITE) and not os.path.exists(settings.mlflow_uri.removeprefix(SQLITE)):
        return ok(f"{settings.mlflow_uri}, to be made by the first run")
    from autosparse.tasks.tracking.reachable import check_experiment

    check_experiment(settings.mlflow_uri, seconds=PATIENCE_SECONDS)
    return ok(without_password(settings.mlflow_uri))


def ray(settings: Settings) -> Finding:
    """The cluster, if there is one. Raises ServiceError or SpecError."""
    check_ray(settings.ray_address, ours=settings.ray_address in settings.ours)
    return ok(settings.ray_address or "a local one for each run")


def stale_ray(settings: Settings) -> Finding:
    """A variable of other programs that is never read here."""
    if stale := os.environ.get(STALE_RAY):
        return warning(f"{STALE_RAY}: {stale} is ignored; AUTOSPARSE_RAY_ADDRESS is the setting", f"unset {STALE_RAY}")
    return ok("not set")


def ports(settings: Settings) -> Finding:
    """Those of `autosparse up`. Raises ServiceError where its state is damaged or no port is free."""
    if running := read_state(settings).addresses:
        return ok(f"up: {', '.join(f'{name} {address}' for name, address in running.items())}")
    given: dict[str, int] = {}
    for name, preferred in PORTS.items():
        given[name] = free_port(preferred, taken=given.values())
    moved = [f"{PORTS[name]} -> {port}" for name, port in given.items() if port != PORTS[name]]
    return ok("free" if not moved else f"taken by others, `up` goes to the next: {', '.join(moved)}")


def clock(settings: Settings) -> Finding:
    """This machine's against those of the servers that tell theirs. Raises ServiceError where the difference breaks something."""
    off = {one: seconds for one in _addresses(settings) if (seconds := _off(one)) is not None}
    if not off:
        return ok("no server to compare with")
    address, seconds = max(off.items(), key=lambda pair: abs(pair[1]))
    said = f"clock: {abs(seconds):.0f} s {'ahead of' if seconds > 0 else 'behind'} {without_password(address)}"
    mend = "timedatectl set-ntp true"
    if abs(seconds) > LIMIT_SECONDS:
        raise ServiceError(f"{said}, and S3 takes no signatures from another time; {mend}", {"mend": mend})
    return warning(f"{said}; times in MLflow and Prefect will not fit", mend) if abs(seconds) > SKEW_SECONDS else ok(f"as {', '.join(off)}")


def _addresses(settings: Settings) -> list[str]:
    """Of the servers in use that speak HTTP."""
    s3 = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or AWS
    found = [settings.prefect_api_url, settings.mlflow_uri, None if is_local(settings.storage) else s3]
    return [one for one in found if one and one.startswith("http")]


def _off(address: str) -> float | None:
    """Seconds by which this machine is ahead of a server, None where that does not tell its time."""
    before = time.time()
    try:
        with opener(address).open(address, timeout=PATIENCE_SECONDS / 2) as answer:
            told = answer.headers.get("Date")
    except urllib.error.HTTPError as answer:
        told = answer.headers.get("Date")
        answer.close()
    except (OSError, ValueError):
        return None
    try:
        return (before + time.time()) / 2 - parsedate_to_datetime(str(told)).timestamp()
    except (TypeError, ValueError):
        return None
