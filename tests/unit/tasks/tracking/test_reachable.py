"""MLflow servers as people have them: hosted, behind a prefix, with a login, a certificate of their own, with a deleted experiment."""

import base64
import time
from pathlib import Path
from typing import Any

import pytest

from autosparse.models.errors import ServiceError, SpecError
from autosparse.tasks.tracking.reachable import check_experiment, check_reachable
from tests.small_server import Answer, Asked, self_signed, small_server

FOUND = {"experiment": {"experiment_id": "7", "name": "autosparse", "lifecycle_stage": "active"}}
NONE = {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "Could not find experiment with name 'autosparse'"}
SETTINGS = ("TOKEN", "USERNAME", "PASSWORD", "INSECURE_TLS", "SERVER_CERT_PATH")


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in SETTINGS:
        monkeypatch.delenv(f"MLFLOW_TRACKING_{name}", raising=False)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("HOME", str(tmp_path))  # MLflow looks for credentials there


def hosted(asked: Asked) -> Answer:
    """A server without /health."""
    return (200, FOUND) if asked.path.startswith("/api/2.0/mlflow/experiments/get-by-name?") else (404, "nothing here")


def lines(error: pytest.ExceptionInfo[Any]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_server_without_health_is_alive() -> None:
    with small_server(hosted) as (address, asked):
        check_experiment(address)
        check_reachable(f"{address}/")
    assert not [one for one in asked if "health" in one.path]


def test_one_without_our_experiment_is_alive() -> None:
    with small_server(lambda _: (404, NONE)) as (address, _):
        check_experiment(address)


def test_one_behind_a_prefix_is_asked_there() -> None:
    with small_server(lambda asked: hosted(Asked("", asked.path.removeprefix("/team/mlflow"), {}))) as (address, asked):
        check_reachable(f"{address}/team/mlflow")
        assert asked[0].path.startswith("/team/mlflow/api/2.0/")


def test_another_server_is_told_from_an_mlflow() -> None:
    with (
        small_server(lambda _: (404, "<html>")) as (address, _),
        pytest.raises(ServiceError, match=r"answers 404 \(text/html\).* as no MLflow does; MLFLOW_TRACKING_URI") as error,
    ):
        check_reachable(address)
    assert address in lines(error)


@pytest.mark.parametrize(
    ("status", "given", "hint"),
    [
        (401, {}, "(401); set MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"),
        (403, {}, "(403); set MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"),
        (401, {"TOKEN": "t"}, "(401); it does not take MLFLOW_TRACKING_TOKEN"),
        (401, {"USERNAME": "me"}, "(401); MLFLOW_TRACKING_PASSWORD is missing"),
        (401, {"PASSWORD": "p"}, "(401); MLFLOW_TRACKING_USERNAME is missing"),
        (401, {"USERNAME": "me", "PASSWORD": "p"}, "(401); it does not know MLFLOW_TRACKING_USERNAME with MLFLOW_TRACKING_PASSWORD"),
        (403, {"TOKEN": "t"}, "(403); it does not take MLFLOW_TRACKING_TOKEN, or they may not read experiments"),
    ],
)
def test_one_that_lets_nobody_in_says_what_is_missing(
    status: int, given: dict[str, str], hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in given.items():
        monkeypatch.setenv(f"MLFLOW_TRACKING_{name}", value)
    start = time.monotonic()
    with small_server(lambda _: (status, "no")) as (address, _), pytest.raises(ServiceError) as error:
        check_reachable(address)
    assert lines(error) == f"mlflow: {address} lets nobody in {hint}"
    assert time.monotonic() - start < 3, "nobody waits for a login"


@pytest.mark.parametrize(
    ("given", "header"),
    [({"TOKEN": "t0k"}, "Bearer t0k"), ({"USERNAME": "me", "PASSWORD": "pw"}, f"Basic {base64.b64encode(b'me:pw').decode()}")],
)
def test_token_and_user_are_sent(given: dict[str, str], header: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in given.items():
        monkeypatch.setenv(f"MLFLOW_TRACKING_{name}", value)
    with small_server(lambda asked: hosted(asked) if asked.headers.get("Authorization") == header else (401, "no")) as (address, _):
        check_experiment(address)


def test_a_certificate_of_its_own_is_named_and_then_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = self_signed(tmp_path)
    with small_server(hosted, certificate=certificate) as (address, _):
        with pytest.raises(ServiceError, match=r"certificate that nobody here knows .*MLFLOW_TRACKING_SERVER_CERT_PATH=") as error:
            check_reachable(address)
        assert "MLFLOW_TRACKING_INSECURE_TLS" in lines(error) and "0x" not in lines(error)
        with monkeypatch.context() as patch:
            patch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(certificate[0]))
            check_experiment(address)
        with monkeypatch.context() as patch:
            patch.setenv("REQUESTS_CA_BUNDLE", str(certificate[0]))
            check_experiment(address)
        with monkeypatch.context() as patch:
            patch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", "/nowhere.pem")
            with pytest.raises(ServiceError, match="/nowhere.pem.*MLFLOW_TRACKING_SERVER_CERT_PATH") as error:
                check_reachable(address)
            lines(error)
        monkeypatch.setenv("MLFLOW_TRACKING_INSECURE_TLS", "true")
        with pytest.warns(match="Unverified HTTPS"):
            check_reachable(address)


def test_one_that_starts_is_waited_for_and_one_that_stays_away_is_not() -> None:
    answers = iter([(503, "starting"), (200, FOUND), (200, FOUND)])
    with small_server(lambda _: next(answers)) as (address, asked):
        check_reachable(address, seconds=6)
        assert len(asked) == 2
    with pytest.raises(ServiceError, match=r"^mlflow: http://127\.0\.0\.1:9 did not answer for 1 s \(\[Errno 111\] Connection refused\)$"):
        check_reachable("http://127.0.0.1:9", seconds=5.5)


def test_a_proxy_is_named_and_used_for_other_machines_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    with small_server(hosted) as (proxy, asked):
        monkeypatch.setenv("http_proxy", proxy)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        with pytest.raises(ServiceError, match="as no MLflow does"):
            check_reachable("http://mlflow.example.org")
        assert asked[0].path.startswith("http://mlflow.example.org/api/2.0/")
    with pytest.raises(ServiceError, match=rf"Connection refused\); asked through http_proxy={proxy}$"):
        check_reachable("http://mlflow.example.org", seconds=5)
    with small_server(hosted) as (address, _):
        check_reachable(address)


@pytest.mark.parametrize("address", ["./mlruns", "file:///tmp/mlruns", "file:mlruns", "/tmp/mlruns", "ftp://host", "http:host", ""])
def test_what_is_no_address_is_one_line_with_what_is(address: str) -> None:
    with pytest.raises(SpecError, match=r"^MLFLOW_TRACKING_URI: .* is not allowed; allowed: http\(s\)://host:port, sqlite:////abs[^\n]*$"):
        check_experiment(address)


def test_databricks_without_its_settings_is_one_line() -> None:
    with pytest.raises(ServiceError, match=r"^mlflow: databricks cannot be used \([^\n]+\)$"):
        check_experiment("databricks")
