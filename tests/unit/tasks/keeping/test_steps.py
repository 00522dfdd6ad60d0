"""Which files go when a step is to be done again, on the keys of a small run that are written out by hand."""

import pytest

from autosparse.flows.recipes import smoke
from autosparse.models.errors import SpecError
from autosparse.models.specs.fields import override
from autosparse.storage.paths import RunPaths
from autosparse.tasks.keeping.removal import whole
from autosparse.tasks.keeping.steps import gone_with, step_of

RUN = RunPaths("x")
# rounds train at densities 1, 0.5 and 0.25, and cut to 0.125 in the end
SPEC = override(smoke(), {"irp.rounds": 3, "irp.final_density": 0.125})
ROUNDS = [f"irp/net-seed0/round-00{index}/{file}" for index in range(3) for file in ("report.json", "mask.safetensors")]
STATES = ["irp/net-seed0/initial.safetensors", "irp/net-seed0/rewind.safetensors"]
TICKETS = ["irp/net-seed0/ticket-0.3.safetensors", "irp/net-seed0/ticket-0.2.safetensors"]  # cut by rounds 1 and 2
OTHER = ["irp/net-seed1/round-000/report.json", "irp/net-seed1/initial.safetensors"]
FEATURES = ["features/report.json", "features/d0/_manifest.json", "features/d0/part-00000.parquet"]
SCORER = ["scorer/report.json", "scorer/scorer.safetensors", "scorer/registration/report.json"]
LEARNED = [f"fanout/net/seed7/scorer/{file}" for file in ("report.json", "mask-0.1.safetensors", "density-0.1/report.json")]
TICKET = ["fanout/net/seed7/ticket/density-0.1/report.json"]
SNIP = [f"fanout/net/seed7/snip/{file}" for file in ("report.json", "mask-0.1.safetensors", "scores.safetensors")]
ARMS = [f"fanout/net/seed7/snip/density-{density}/report.json" for density in ("0.1", "0.05", "0.1-shuffle")]
DENSE = ["fanout/net/seed7/dense/density-1/report.json"]
SUMMARY = ["valley/net/a--b-c/report.json", "summary/report.json", "summary/summary.md"]
RECORDS = ["spec.json", "run.json", "data/data/report.json"]
CHECKPOINTS = ["training/irp-net-seed0-round-001/checkpoint/state.json", "training/irp-net-seed1-round-001-b/checkpoint/state.json"]
ALL = [*ROUNDS, *STATES, *TICKETS, *OTHER, *FEATURES, *SCORER, *LEARNED, *TICKET, *SNIP, *ARMS, *DENSE, *SUMMARY, *RECORDS, *CHECKPOINTS]


def gone(key: str) -> set[str]:
    found = gone_with(RUN, SPEC, step_of(RUN, SPEC, key), [f"runs/x/{one}" for one in ALL])
    return {RUN.within(one) for one in found}


@pytest.mark.parametrize(
    ("key", "goes"),
    [
        ("irp/net-seed0/round-000", [*ROUNDS, *STATES, *TICKETS, *FEATURES, *SCORER, *LEARNED, *TICKET, *SUMMARY, CHECKPOINTS[0]]),
        ("irp/net-seed0/rewind.safetensors", [*ROUNDS, *STATES, *TICKETS, *FEATURES, *SCORER, *LEARNED, *TICKET, *SUMMARY, CHECKPOINTS[0]]),
        ("irp/net-seed0/round-002/mask.safetensors", [*ROUNDS[4:], TICKETS[1], *FEATURES, *SCORER, *LEARNED, *TICKET, *SUMMARY]),
        (TICKETS[0], [*ROUNDS[2:], *TICKETS, *FEATURES, *SCORER, *LEARNED, *TICKET, *SUMMARY, CHECKPOINTS[0]]),
        ("features/d0/part-00000.parquet", [*FEATURES, *SCORER, *LEARNED, *SUMMARY]),
        ("scorer", [*SCORER, *LEARNED, *SUMMARY]),
        ("scorer/registration/report.json", [SCORER[2]]),
        ("fanout/net/seed7/snip/mask-0.1.safetensors", [*SNIP, *ARMS, *SUMMARY]),
        ("fanout/net/seed7/snip/density-0.1/weights.safetensors", [ARMS[0], *SUMMARY]),
        ("valley/net/a--b-c/report.json", [SUMMARY[0], *SUMMARY[1:]]),
        ("summary", SUMMARY[1:]),
        ("data/data/report.json", [RECORDS[2]]),
        ("run.json", ["run.json"]),
        ("training/irp-net-seed1-round-001-b/checkpoint/state.json", [CHECKPOINTS[1]]),
    ],
)
def test_a_step_goes_with_what_was_built_on_it(key: str, goes: list[str]) -> None:
    assert gone(key) == set(goes)


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("scorrer", r"^--step: 'scorrer' is not allowed; allowed: a file or folder of data, irp, .* of the run$"),
        ("spec.json", r"^--step: 'spec.json' is not allowed"),
        ("../y/scorer", r"^--step: '../y/scorer' is not allowed"),
        ("irp/net-seed0/round-7x", r"^--step: 'irp/net-seed0/round-7x' is not allowed; .*whose rounds have numbers$"),
        ("irp/net-seed0/ticket-x", r"^--step: 'ticket-x' is not allowed; allowed: ticket-DENSITY.safetensors$"),
        ("fanout/net", r"^--step: 'fanout/net' is not allowed; allowed: a step, which has 4 parts in fanout$"),
        ("fanout/net/seed7/snap", r"^--step: 'fanout/net/seed7/snap' is not known; did you mean 'fanout/net/seed7/snip'\?"),
        ("irp/net-seed9/round-000", r"^--step: 'irp/net-seed9/round-000' is not known"),
    ],
)
def test_what_is_no_step_is_refused_in_one_line(key: str, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        gone(key)


def test_what_goes_is_removed_in_as_few_pieces_as_there_can_be_and_reports_first() -> None:
    goes = ["r/a/1", "r/a/2", "r/b/1", "r/b/c/3", "r/d/report.json", "r/d/x"]
    assert whole(goes, ["r/b/2", "r/d/y"]) == ["r/d/report.json", "r/a", "r/b/1", "r/b/c", "r/d/x"]
    assert whole(goes, []) == ["r"]
