"""Loopback never goes through a proxy, other machines do: as every client of ours reads the environment."""

import os
import subprocess
import sys
import urllib.request

import httpx
import pytest
import requests.utils
from botocore.utils import get_environ_proxies

from autosparse.tasks import settings
from autosparse.tasks.proxies import opener, spare_local, spared
from tests.small_server import small_server

PROXY = "http://127.0.0.1:9"
LOCAL = ("http://127.0.0.1:4200/api", "http://localhost:5000/", "http://10.1.2.3:8265/")
REMOTE = ("http://mlflow.example.org/", "https://s3.example.org:9000/", "http://10.1.2.4/")


@pytest.fixture
def behind(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "grpc_proxy", "no_grpc_proxy"):
        for spelled in (name, name.upper()):
            monkeypatch.delenv(spelled, raising=False)
    monkeypatch.setenv("HTTP_PROXY", PROXY)
    monkeypatch.setenv("HTTPS_PROXY", PROXY)


@pytest.mark.usefixtures("behind")
def test_every_client_goes_straight_to_loopback_and_through_the_proxy_elsewhere() -> None:
    spare_local(os.environ, ["10.1.2.3"])  # where `up` listens
    mounts = [(pattern, transport) for pattern, transport in httpx.Client()._mounts.items()]
    for url in (*LOCAL, *REMOTE):
        host = url.split("/")[2]
        straight = url in LOCAL
        assert bool(urllib.request.proxy_bypass(host)) is straight, url  # urllib, aiohttp of s3fs
        assert bool(requests.utils.get_environ_proxies(url, None)) is not straight, url  # mlflow
        assert bool(get_environ_proxies(url)) is not straight, url  # botocore
        first = next((transport for pattern, transport in mounts if pattern.matches(httpx.URL(url))), None)
        assert (first is None) is straight, url  # prefect
        assert spared(os.environ, url) is straight
    assert requests.utils.get_environ_proxies("http://[::1]:5000/", None) == {}
    assert next(transport for pattern, transport in mounts if pattern.matches(httpx.URL("http://[::1]:1/"))) is None


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, "127.0.0.1,localhost,::1"),
        ({"NO_PROXY": "a.example,localhost"}, "a.example,localhost,127.0.0.1,::1"),
        ({"no_proxy": "a.example", "NO_PROXY": "b.example"}, "a.example,b.example,127.0.0.1,localhost,::1"),
        ({"NO_PROXY": "*"}, "*"),
        ({"no_proxy": " a.example , ,"}, "a.example,127.0.0.1,localhost,::1"),
    ],
)
def test_what_somebody_has_excepted_stays(before: dict[str, str], after: str) -> None:
    environment = {"https_proxy": PROXY, **before}
    for _ in range(2):
        spare_local(environment)
        assert environment == {"https_proxy": PROXY, "no_proxy": after, "NO_PROXY": after}


def test_grpc_has_exceptions_of_its_own() -> None:
    environment = {"grpc_proxy": PROXY, "no_grpc_proxy": "a.example"}
    spare_local(environment)
    spare_local(environment)
    assert environment["no_grpc_proxy"] == "a.example,127.0.0.1,localhost,::1"


def test_without_a_proxy_nothing_is_set() -> None:
    environment = {"HTTP_PROXY": "", "NO_PROXY": "a.example"}
    spare_local(environment)
    assert environment == {"HTTP_PROXY": "", "NO_PROXY": "a.example"}


@pytest.mark.usefixtures("behind")
def test_settings_do_it_and_children_inherit_it(monkeypatch: pytest.MonkeyPatch) -> None:
    home = settings.load().home
    assert settings.load().prefect_api_url is None
    home.mkdir(parents=True)
    (home / "services.json").write_text('{"addresses": {"ray": "10.9.8.7:6379", "mlflow": "http://10.9.8.6:5000"}}')
    settings.load()
    asked = "import os; print(os.environ['no_proxy'], os.environ['NO_PROXY'])"
    said = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True).stdout.split()
    assert said == ["127.0.0.1,localhost,::1,10.9.8.7,10.9.8.6"] * 2


@pytest.mark.usefixtures("behind")
def test_our_own_questions_reach_loopback_whatever_the_environment_says() -> None:
    with small_server(lambda _: (200, {})) as (address, _):
        assert opener(address).open(address, timeout=5).status == 200
    with small_server(lambda _: (200, {})) as (proxy, asked):
        os.environ["HTTP_PROXY"] = proxy
        opener("http://far.example").open("http://far.example/x", timeout=5).close()
        assert [one.path for one in asked] == ["http://far.example/x"]
