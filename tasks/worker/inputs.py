"""What a job is told: typed records that cross to Ray as plain data and are checked when they are read, unknown and missing keys too.

Each body has a record of its own beside it (`RoundInputs` in irp_round.py); what they have in common is here.
"""

from dataclasses import dataclass
from typing import Any

from autosparse.models.specs.fields import Spec, from_plain, to_plain
from autosparse.models.specs.run_specs import JobSpec, ScoringSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class RunInputs(Spec):
    """What every job of a run is told: the root of its storage, its name there, and the batches on which networks are scored."""

    storage: str
    name: str
    scoring: ScoringSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class Launch(Spec):
    """What the launcher adds: the job's name, its shape, and the folders of its earlier attempts in the store.

    `checkpoints` is the folder of its checkpoints where Ray Train does not keep them, because it does other jobs beside.
    """

    job: str
    resources: JobSpec
    earlier: tuple[str, ...] = ()
    checkpoints: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Sent(Spec):
    """All that crosses. `inputs` are those of one body, which reads them itself; `events` is the driver's queue, a live handle."""

    run: RunInputs
    inputs: dict
    launch: Launch
    events: object


def config_of(run: RunInputs, inputs: Spec) -> dict[str, Any]:
    """What a driver hands to the launcher, as plain data."""
    return {"run": to_plain(run), "inputs": to_plain(inputs)}


def launched(config: dict[str, Any], launch: Launch, events: object) -> dict[str, Any]:
    """What the launcher makes of it."""
    return {**config, "launch": to_plain(launch), "events": events}


def read_sent(config: Any) -> Sent:
    """The record of what a worker was sent. Raises SpecError, a line per wrong key."""
    return from_plain(Sent, config, "job")
