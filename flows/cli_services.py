"""`autosparse up`, `down`, `status`, `doctor`: each imports what it needs when it is called."""

import sys
from typing import Annotated

from cyclopts import Parameter


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


def status(*, json_: Annotated[bool, Parameter(name="--json", negative="")] = False) -> None:
    """The services, the last runs and the bytes that they take up; as JSON those of every run."""
    from autosparse.flows.service_commands import print_status

    print_status(as_json=json_)


def doctor(*, json_: Annotated[bool, Parameter(name="--json", negative="")] = False) -> None:
    """Look at what a run needs of this place, in seconds: a line each, and what mends it. Exit status 1 where something is wrong."""
    from autosparse.flows.doctor_command import print_findings

    sys.exit(print_findings(as_json=json_))
