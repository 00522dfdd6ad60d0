"""`autosparse up`, `down`, `status`, `doctor`, `notify`: each imports what it needs when it is called."""

import sys
from typing import Annotated

from cyclopts import Parameter

from autosparse.flows.assignments import Flag, Json


def up(*, expose: str | None = None) -> None:
    """Start Prefect server, MLflow server, Ray head and a Prefect worker on loopback; create pool and deployment.

    Parameters
    ----------
    expose
        Listen on this IP address of the machine instead. Only with credentials for every server in the environment
        (docs/running.md); without them nothing is started.
    """
    from autosparse.flows.service_commands import start_services

    start_services(expose)


def down() -> None:
    """Stop what `autosparse up` started, and nothing else."""
    from autosparse.flows.service_commands import stop_services

    stop_services()


def status(*, json_: Json = False) -> None:
    """The services, the last runs and the bytes that they take up; as JSON those of every run."""
    from autosparse.flows.service_commands import print_status

    print_status(as_json=json_)


def doctor(*, json_: Json = False) -> None:
    """Look at what a run needs of this place, in seconds: a line each, and what mends it. Exit status 1 where something is wrong."""
    from autosparse.flows.doctor_command import print_findings

    sys.exit(print_findings(as_json=json_))


def notify(
    url: str | None = None,
    *,
    on: str = "failed,completed,crashed,cancelled",
    remove: Flag = False,
    list_: Annotated[bool, Parameter(name="--list", negative="")] = False,
    test: Flag = False,
    json_: Json = False,
) -> None:
    """Have somebody told when a run ends, by an automation of the Prefect server in use: webhook, mail, Slack and what else Apprise knows.

    Parameters
    ----------
    url
        The address, e.g. https://hooks.slack.com/services/... or mailto://user:password@example.com; - reads it from the standard
        input. It is kept in a block of the Prefect server and shown nowhere. With --remove also a name that --list shows.
    on
        How a run must have ended: failed, completed, crashed, cancelled, separated by commas.
    remove
        Tell this address no more.
    list_
        Say who is told of what.
    test
        Send one message from here now; nothing is set up.
    json_
        The list as JSON.
    """
    from autosparse.flows.notify_command import notify_of_runs

    print(notify_of_runs(url, on, remove=remove, listed=list_, test=test, as_json=json_))
