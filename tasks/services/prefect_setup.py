"""What a Prefect server must hold: the work pool, the automation that ends runs whose process died, the deployment `autosparse/irp`."""

import os
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.exceptions import ObjectAlreadyExists
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.workers.process import ProcessWorker

from autosparse.models.errors import ServiceError
from autosparse.tasks.services.commands import POOL, program
from autosparse.tasks.services.processes import last_line

DEPLOYMENTS = Path(__file__).with_name("prefect.yaml")  # a link to the one at the top of the repository
DEPLOY_SECONDS = 120
ZOMBIES = "Crash zombie flows"
SILENCE_VARIABLE = "AUTOSPARSE_SILENCE_SECONDS"
SILENCE = 540  # three missed heartbeats
ENDED = {f"prefect.flow-run.{state}" for state in ("Completed", "Failed", "Cancelled", "Crashed")}


def prepare_pool(api: str) -> None:
    """Create the pool and the automation on a server where they are missing."""
    with temporary_settings({PREFECT_API_URL: api}), get_client(sync_client=True) as client:
        template = ProcessWorker.get_default_base_job_template()
        with suppress(ObjectAlreadyExists):
            client.create_work_pool(WorkPoolCreate(name=POOL, type="process", base_job_template=template))
        _crash_zombies(client)


def deploy(api: str, *, environment: Mapping[str, str], log: Path) -> None:
    """`prefect deploy --all` with the deployments of this package. Raises ServiceError."""
    command = [program("prefect"), "--no-prompt", "deploy", "--all", "--prefect-file", str(DEPLOYMENTS)]
    own = {**environment, "PREFECT_API_URL": api}
    try:
        with open(log, "w") as output:
            subprocess.run(
                command, cwd=log.parent, env=own, stdin=subprocess.DEVNULL, stdout=output, stderr=output, timeout=DEPLOY_SECONDS, check=True
            )
    except subprocess.SubprocessError as error:
        reason = f"ended with {error.returncode}" if isinstance(error, subprocess.CalledProcessError) else f"took over {DEPLOY_SECONDS} s"
        raise ServiceError(f"prefect deploy: {reason} ({last_line(log)}); its log: {log}") from error


def _crash_zombies(client: SyncPrefectClient) -> None:
    """A killed process cannot report its end: without this its flow run would stay Running for ever."""
    if client.read_automations_by_name(ZOMBIES):
        return
    silence = timedelta(seconds=float(os.environ.get(SILENCE_VARIABLE, SILENCE)))
    heartbeat = "prefect.flow-run.heartbeat"
    trigger = EventTrigger(
        after={heartbeat},
        expect={heartbeat, *ENDED},
        match={"prefect.resource.id": ["prefect.flow-run.*"]},  # type: ignore[arg-type]
        for_each={"prefect.resource.id"},
        posture=Posture.Proactive,
        threshold=1,
        within=silence,
    )
    message = f"No heartbeat for {silence.total_seconds():.0f} s: its process is gone."
    action = ChangeFlowRunState(name=None, state=StateType.CRASHED, message=message, force=False)
    client.create_automation(AutomationCore(name=ZOMBIES, trigger=trigger, actions=[action]))
