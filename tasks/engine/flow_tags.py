"""Tags of a flow run, by which Prefect's page filters: recipe, networks, data, fingerprint."""

from typing import Any

from prefect.client.orchestration import get_client
from prefect.logging import get_run_logger

from autosparse.models.specs.experiment import ExperimentSpec
from autosparse.models.specs.fields import fingerprint


def tags_of(spec: ExperimentSpec, recipe: str | None) -> list[str]:
    """`recipe:smoke`, `network:resnet8`, `data:digits`, `spec:ecf9098e0d08`; networks and data of sources and targets alike."""
    targets = spec.fanout.targets
    networks = [*spec.irp.networks, *(target.network for target in targets)]
    data = [spec.data, *(spec.data_of(target) for target in targets)]
    found = [f"recipe:{recipe}"] if recipe else []
    found += [f"network:{network.label}" for network in networks] + [f"data:{one.title}" for one in data]
    return [*dict.fromkeys(found), f"spec:{fingerprint(spec)}"]


def tag_flow_run(flow_run: Any, spec: ExperimentSpec, recipe: str | None) -> None:
    """Add them to those that the flow run has; best effort, because a run must not fail over it."""
    try:
        with get_client(sync_client=True) as client:
            client.update_flow_run(flow_run.id, tags=[*dict.fromkeys([*flow_run.tags, *tags_of(spec, recipe)])])
    except Exception as error:
        get_run_logger().warning("Prefect did not take the tags of the run (%s)", error)
