"""Proxies of the environment are for other machines: loopback, and what `autosparse up` started, is never asked through one."""

import os
import urllib.request
from collections.abc import Iterable, Mapping, MutableMapping
from urllib.parse import urlsplit

from autosparse.models.errors import without_password

LOOPBACK = ("127.0.0.1", "localhost", "::1")
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy")
EXCEPTIONS = ("no_proxy", "NO_PROXY")
GRPC_EXCEPTIONS = "no_grpc_proxy"  # where it is set, gRPC looks at no other


def proxies(environment: Mapping[str, str]) -> dict[str, str]:
    """The proxies that are set, by variable."""
    names = (name for lower in PROXIES for name in (lower, lower.upper()))
    return {name: environment[name] for name in names if environment.get(name)}


def spare_local(environment: MutableMapping[str, str], hosts: Iterable[str] = ()) -> None:
    """Except loopback and `hosts` from the proxies of an environment; what is excepted already stays. Without a proxy nothing changes.

    Both spellings of the variable get the same text: programs differ in which one they read.
    """
    if not proxies(environment):
        return
    own = [host.strip("[]") for host in (*LOOPBACK, *hosts) if host]
    text = _with(own, *(environment.get(variable, "") for variable in EXCEPTIONS))
    environment.update(dict.fromkeys(EXCEPTIONS, text))
    if environment.get(GRPC_EXCEPTIONS):
        environment[GRPC_EXCEPTIONS] = _with(own, environment[GRPC_EXCEPTIONS])


def _with(own: list[str], *texts: str) -> str:
    found = [name.strip() for text in texts for name in text.split(",") if name.strip()]
    return "*" if "*" in found else ",".join(dict.fromkeys([*found, *own]))  # a star beside other names is no star to urllib


def opener(url: str) -> urllib.request.OpenerDirector:
    """What opens a URL: through the proxies of the environment, but to this machine (urllib finds no exception for ::1 in brackets)."""
    local = urlsplit(url).hostname in LOOPBACK
    return urllib.request.build_opener(*([urllib.request.ProxyHandler({})] if local else []))


def spared(environment: Mapping[str, str], url: str) -> bool:
    """Whether a URL is asked without a proxy."""
    host = urlsplit(url).hostname or ""
    return host in LOOPBACK or bool(urllib.request.proxy_bypass_environment(host, {"no": environment.get("no_proxy", "")}))  # type: ignore[attr-defined]


def asked_through(url: str) -> str:
    """For a line about a server that does not answer: through which proxies of this environment it was asked; empty where through none."""
    found = {} if spared(os.environ, url) else proxies(os.environ)
    return f"; asked through {', '.join(f'{name}={without_password(one)}' for name, one in found.items())}" if found else ""
