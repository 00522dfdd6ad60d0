"""What a Prefect server must hold before a worker starts: the work pool, and the automation that ends runs whose process died."""

from datetime import timedelta

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.exceptions import ObjectAlreadyExists
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.workers.process import ProcessWorker

from tasks.service_commands import POOL

ZOMBIES = "Crash zombie flows"
SILENCE = timedelta(seconds=540)  # three missed heartbeats
ENDED = {f"prefect.flow-run.{state}" for state in ("Completed", "Failed", "Cancelled", "Crashed")}


def prepare_pool(api: str) -> None:
    """Create the pool and the automation on a server where they are missing."""
    with temporary_settings({PREFECT_API_URL: api}), get_client(sync_client=True) as client:
        template = ProcessWorker.get_default_base_job_template()
        try:
            client.create_work_pool(WorkPoolCreate(name=POOL, type="process", base_job_template=template))
        except ObjectAlreadyExists:
            pass
        _crash_zombies(client)


def _crash_zombies(client: SyncPrefectClient) -> None:
    """A killed process cannot report its end: without this its flow run would stay Running for ever."""
    if client.read_automations_by_name(ZOMBIES):
        return
    heartbeat = "prefect.flow-run.heartbeat"
    trigger = EventTrigger(
        after={heartbeat},
        expect={heartbeat, *ENDED},
        match={"prefect.resource.id": ["prefect.flow-run.*"]},  # type: ignore[arg-type]
        for_each={"prefect.resource.id"},
        posture=Posture.Proactive,
        threshold=1,
        within=SILENCE,
    )
    message = f"No heartbeat for {SILENCE.total_seconds():.0f} s: its process is gone."
    action = ChangeFlowRunState(state=StateType.CRASHED, message=message)
    client.create_automation(AutomationCore(name=ZOMBIES, trigger=trigger, actions=[action]))
