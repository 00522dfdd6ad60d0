"""Prefect servers as people have them: with or without /api, in the cloud, with a login, behind a proxy that answers for them."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from autosparse.models.errors import ServiceError, SpecError
from autosparse.tasks.server_addresses import prefect_api, settle_addresses
from autosparse.tasks.services.prefect_answer import check_prefect
from tests.small_server import Answer, Asked, small_server

ASK = """
import sys
from autosparse.models.errors import AutosparseError
from autosparse.tasks import settings
from autosparse.tasks.services.prefect_answer import check_prefect
try:
    check_prefect(settings.load().prefect_api_url, seconds=5)
except AutosparseError as error:
    sys.exit(str(error))
"""


def prefect(asked: Asked) -> Answer:
    return (200, []) if asked.path == "/api/flows/filter" else (404, {"detail": "Not Found"})


@pytest.mark.parametrize(
    ("given", "api"),
    [
        ("http://127.0.0.1:4200", "http://127.0.0.1:4200/api"),
        ("http://127.0.0.1:4200/", "http://127.0.0.1:4200/api"),
        ("http://127.0.0.1:4200/api", "http://127.0.0.1:4200/api"),
        ("http://127.0.0.1:4200/api/", "http://127.0.0.1:4200/api"),
        (" http://[::1]:4200/api ", "http://[::1]:4200/api"),
        ("https://host.example/team/prefect", "https://host.example/team/prefect/api"),
        ("https://host.example/team/prefect/api", "https://host.example/team/prefect/api"),
        ("https://api.prefect.cloud/api/accounts/A/workspaces/W", "https://api.prefect.cloud/api/accounts/A/workspaces/W"),
        ("https://api.prefect.cloud/api/accounts/A/workspaces/W/", "https://api.prefect.cloud/api/accounts/A/workspaces/W"),
    ],
)
def test_the_address_gets_what_is_missing_and_no_more(given: str, api: str) -> None:
    assert prefect_api(given) == api == prefect_api(api)
    environment = {"PREFECT_API_URL": given}
    settle_addresses(environment)
    assert environment == {"PREFECT_API_URL": api}


@pytest.mark.parametrize("address", ["127.0.0.1:4200", "localhost:4200/api", "ftp://host/api", "http://"])
def test_what_is_no_address_is_one_line(address: str) -> None:
    with pytest.raises(SpecError, match=r"^PREFECT_API_URL: '[^\n]*' is not allowed; allowed: http://host:4200/api, or https[^\n]*$"):
        prefect_api(address)


def test_a_login_in_an_address_without_api_goes_where_prefect_looks_for_it() -> None:
    environment = {"PREFECT_API_URL": "http://me:p%40w@host:4200"}
    settle_addresses(environment)
    assert environment == {"PREFECT_API_URL": "http://host:4200/api", "PREFECT_API_AUTH_STRING": "me:p@w"}


def test_a_server_that_answers_is_asked_once() -> None:
    with small_server(prefect) as (address, asked):
        check_prefect(prefect_api(address))
        assert [one.path for one in asked if "csrf" not in one.path] == ["/api/flows/filter"]
    check_prefect(None)


def lines(error: pytest.ExceptionInfo[Any]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def test_one_that_is_no_prefect_is_told_from_one() -> None:
    for answer in ((404, {"detail": "Not Found"}), (200, "<html>")):
        with small_server(lambda _, answer=answer: answer) as (address, _), pytest.raises(ServiceError) as error:
            check_prefect(f"{address}/api")
        assert f"prefect: {address}/api answers, but not as Prefect does" in lines(error)


def test_one_that_is_away_is_named_with_the_setting() -> None:
    with pytest.raises(
        ServiceError, match=r"^prefect: http://127\.0\.0\.1:9/api did not answer for \d s \(.*refused\); PREFECT_API_URL says"
    ) as error:
        check_prefect("http://127.0.0.1:9/api", seconds=5)
    lines(error)
    with pytest.raises(ServiceError, match="; `autosparse up` starts it again$"):
        check_prefect("http://127.0.0.1:9/api", ours=True, seconds=5)


def test_a_gateway_without_its_server_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    with small_server(lambda _: (503, "no upstream")) as (address, asked):
        with pytest.raises(ServiceError, match="did not answer for .*503"):
            check_prefect(f"{address}/api", seconds=5)
        assert len(asked) == 1
        monkeypatch.setenv("HTTP_PROXY", address)  # for another machine it is the proxy that says so
        with pytest.raises(ServiceError, match=rf"503.*; asked through HTTP_PROXY={address}; PREFECT_API_URL says"):
            check_prefect("http://prefect.example.org/api", seconds=5)
        assert asked[-1].path.startswith("http://prefect.example.org/api/")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "lets nobody in (401); set PREFECT_API_KEY (Prefect Cloud), or PREFECT_API_AUTH_STRING=name:password"),
        ({"PREFECT_API_KEY": "pnu_wrong"}, "lets nobody in (401); it does not take PREFECT_API_KEY"),
        ({"PREFECT_API_KEY": "pnu_right"}, ""),
    ],
)
def test_a_cloud_wants_its_key_and_never_another_api(given: dict[str, str], said: str, tmp_path: Path) -> None:
    def cloud(asked: Asked) -> Answer:
        if asked.headers.get("Authorization") != "Bearer pnu_right":
            return 401, {"detail": "Unauthorized"}
        return (200, []) if asked.path == "/api/accounts/A/workspaces/W/flows/filter" else (404, json.dumps("no"))

    with small_server(cloud) as (address, asked):
        own = {**os.environ, "AUTOSPARSE_HOME": str(tmp_path), "PREFECT_HOME": str(tmp_path), **given}
        own["PREFECT_API_URL"] = f"{address}/api/accounts/A/workspaces/W/"
        # a process of its own: Prefect reads its settings when it is imported
        done = subprocess.run([sys.executable, "-c", ASK], env=own, capture_output=True, text=True, timeout=60)
    assert done.stderr.strip().endswith(said) and len(done.stderr.splitlines()) == bool(said), done.stderr
    assert done.returncode == bool(said)
    assert all(one.path.startswith("/api/accounts/A/workspaces/W/") for one in asked) and asked
