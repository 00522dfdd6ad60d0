"""Who is told when a run ends: what is refused, and one real server that tells a real listener."""

import json
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Cancelled, Completed, Failed

from autosparse.models.errors import SpecError
from autosparse.tasks.services.notifications import apprise_address, check_states, name_of
from tests.faults.servers import prefect_server
from tests.pipeline.command_line import cli, wait_for

Typed = Callable[..., subprocess.CompletedProcess[str]]
pytestmark = pytest.mark.filterwarnings("ignore:.imghdr. is deprecated")  # by Python 3.11 when Apprise loads a plugin
SLACK = "https://hooks.slack.com/services/T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ"


@contextmanager
def listener() -> Iterator[tuple[str, list[dict[str, str]]]]:
    """An HTTP server: its address, and what was posted to it."""
    heard: list[dict[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/hooks/s3cret", heard
        finally:
            server.shutdown()


def test_addresses_of_apprise_are_taken_and_any_webhook_gets_json() -> None:
    assert apprise_address(SLACK) == SLACK
    assert apprise_address("http://example.com/a?b=1") == "json://example.com/a?b=1"
    assert apprise_address("HTTPS://example.com/a") == "jsons://example.com/a"
    assert [name_of(apprise_address(url)).split("-")[0] for url in (SLACK, "mailto://a:b@example.com", "http://h")] == [
        "slack",
        "email",
        "json",
    ]


@pytest.mark.parametrize("url", ["", "nonsense-s3cret", "foo://s3cret", "https://", "slack://s3cret"])
def test_other_addresses_are_refused_and_not_shown(url: str) -> None:
    with pytest.raises(SpecError, match="^URL: .* is not allowed; allowed: an address that Apprise knows") as caught:
        apprise_address(url)
    assert "s3cret" not in str(caught.value)


def test_states_have_a_did_you_mean() -> None:
    check_states(("failed", "crashed"))
    with pytest.raises(SpecError, match=r"^--on: .*did you mean 'failed'"):
        check_states(("faild",))
    with pytest.raises(SpecError, match="^--on: "):
        check_states(())


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ((), "URL: '' is not allowed; allowed: an address, - for one on the standard input, or --list"),
        ((SLACK, "--test", "--remove"), "notify: 'several of --remove, --list and --test' is not allowed; allowed: one of them"),
        ((SLACK,), "PREFECT_API_URL: '' is not allowed; allowed: the address of a Prefect server that stays; `autosparse up` starts one"),
    ],
)
def test_a_command_that_makes_no_sense_is_one_line(arguments: tuple[str, ...], line: str, typed: Typed) -> None:
    done = typed("notify", *arguments)
    assert (done.returncode, done.stderr) == (2, f"error: {line}\n")


@pytest.mark.services
def test_a_message_is_tried_out_without_a_server(typed: Typed) -> None:
    with listener() as (url, heard):
        done = typed("notify", url, "--test")
        assert (done.returncode, done.stdout) == (0, f"sent to {name_of(apprise_address(url))}\n")
    assert [one["title"] for one in heard] == ["autosparse: a test"]
    assert typed("notify", url, "--test").stderr == f"error: notify: {name_of(apprise_address(url))} did not take the message\n"


@pytest.mark.services
@pytest.mark.slow
def test_a_run_that_ends_is_told_once_to_those_who_asked(tmp_path: Path) -> None:
    with (
        prefect_server(tmp_path) as server,
        listener() as (url, heard),
        temporary_settings({PREFECT_API_URL: server.address}),
        get_client(sync_client=True) as client,
    ):
        name = name_of(apprise_address(url))

        def notify(*arguments: str) -> str:
            done = cli(tmp_path, "notify", *arguments, PREFECT_API_URL=server.address)
            assert done.returncode == 0, done.stderr
            assert "s3cret" not in done.stdout + done.stderr
            return done.stdout.strip()

        assert notify("--list") == "nobody is told"
        assert notify(url, "--on", "completed,cancelled") == f"{name} is told of runs that end cancelled, completed"
        assert notify(url, "--on", "completed, failed") == f"{name} is told of runs that end completed, failed"
        before = [one.model_dump() for one in client.read_automations()]
        assert notify(url, "--on", "failed,completed") == f"{name} is told of runs that end completed, failed (as before)"
        assert [one.model_dump() for one in client.read_automations()] == before and len(before) == 1
        assert notify("--list") == f"{name}  completed,failed"
        assert "s3cret" not in json.dumps(before, default=str)

        ended(client, "someone-else", "other", Completed())
        ended(client, "autosparse", "stopped", Cancelled())
        ended(client, "autosparse", "broken", Failed(message="JobError: it broke"))
        wait_for(lambda: len(heard) == 1, 60)
        ended(client, "autosparse", "first", Completed())
        wait_for(lambda: len(heard) == 2, 60)
        assert [one["title"] for one in heard] == ["autosparse: broken Failed", "autosparse: first Completed"]
        assert "JobError: it broke" in heard[0]["message"] and "/runs/flow-run/" in heard[0]["message"]

        assert notify(name, "--remove") == f"{name} is told no more"
        assert notify("--list") == "nobody is told" and client.read_automations() == []
        refused = cli(tmp_path, "notify", name, "--remove", PREFECT_API_URL=server.address)
        assert refused.returncode == 2 and refused.stderr.startswith(f"error: notify: '{name}' is not allowed")
    away = cli(tmp_path, "notify", "--list", PREFECT_API_URL=server.address, PREFECT_CLIENT_MAX_RETRIES="0")
    assert away.returncode == 2 and away.stderr.startswith(f"error: prefect: {server.address} did not take it"), away.stderr
    assert os.linesep not in away.stderr.strip()


def ended(client: SyncPrefectClient, flow: str, name: str, state: object) -> None:
    """A run of that flow that ends in that state."""
    flow_id = client.create_flow_from_name(flow)
    body = {"flow_id": str(flow_id), "name": name, "state": {"type": "RUNNING", "name": "Running"}}
    made = client._client.post("/flow_runs/", json=body).json()
    client.set_flow_run_state(made["id"], state, force=True)  # type: ignore[arg-type]
