"""What a Prefect server must hold: the work pool, the automation that ends runs whose process died, the deployment `autosparse/irp`.

`autosparse up` and the flow workers of containers ask for it alike; docker/start-flow-worker as
`python -m autosparse.tasks.services.prefect_setup`, for the server of PREFECT_API_URL.
"""

import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.exceptions import ObjectAlreadyExists
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.workers.process import ProcessWorker

from autosparse.models.errors import AutosparseError, ServiceError, not_allowed
from autosparse.tasks import settings as settings_module
from autosparse.tasks.limits import RUNS, limit
from autosparse.tasks.services.commands import POOL, program
from autosparse.tasks.services.processes import last_line

DEPLOYMENTS = Path(__file__).with_name("prefect.yaml")  # a link to the one at the top of the repository
DEPLOY_SECONDS = 120
ZOMBIES = "Crash zombie flows"
SILENCE_VARIABLE = "AUTOSPARSE_SILENCE_SECONDS"
SILENCE = 540  # three missed heartbeats
ENDED = {f"prefect.flow-run.{state}" for state in ("Completed", "Failed", "Cancelled", "Crashed")}


def prepare(api: str, *, environment: Mapping[str, str], log: Path) -> None:
    """Create on a server what is missing: pool, automation, deployment; a second call changes nothing but the pool's limit.

    Raises SpecError for a limit that is none, ServiceError when the deployment fails.
    """
    at_once = int(limit(RUNS))
    with temporary_settings({PREFECT_API_URL: api}), get_client(sync_client=True) as client:
        template = ProcessWorker.get_default_base_job_template()
        with suppress(ObjectAlreadyExists):
            client.create_work_pool(WorkPoolCreate(name=POOL, type="process", base_job_template=template))
        client.update_work_pool(POOL, WorkPoolUpdate(concurrency_limit=at_once))
        crash_zombies(client)
    deploy(api, environment=environment, log=log)


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


def crash_zombies(client: SyncPrefectClient) -> None:
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


def main() -> None:
    """Prepare the server of PREFECT_API_URL, for a worker that something else starts. Our errors are one line each."""
    try:
        settings = settings_module.load()
        if not settings.prefect_api_url:
            raise not_allowed("PREFECT_API_URL", "", "the address of a Prefect server")
        log = settings.home / "logs" / "deploy.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        prepare(settings.prefect_api_url, environment=os.environ, log=log)
    except AutosparseError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
