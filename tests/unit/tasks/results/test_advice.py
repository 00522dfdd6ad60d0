"""What a run says that a person should do, on paper: the choice, what it gains, how small it gets, the command."""

from typing import Any

from autosparse.tasks.results.advice import advised, lines, opening
from autosparse.tasks.results.arm_reports import opened
from autosparse.tasks.results.frontier import frontiers

DENSE = {"nonzeros": 1000, "parameters": 1000, "multiply_adds": 8000}


def arms(method: str, density: float, *accuracies: float, dense_ms: float | None = None, **costs: float) -> list[dict[str, Any]]:
    """Arms of seeds 0, 1, ... that answer 32 images in 2 ms."""
    latency = {"32": {"median": 2.0, "n": 9, **({"dense": dense_ms} if dense_ms else {})}}
    deployed = {**DENSE, **costs, "bytes": {"best": 1}, "latency_ms": latency}
    same = {"target": "net", "dataset": "digits", "method": method, "density": density, "status": "ok", "deployed": deployed}
    return [opened({**same, "seed": seed, "accuracy": accuracy, "training_seconds": 1.0}) for seed, accuracy in enumerate(accuracies)]


def told(*groups: list[dict[str, Any]]) -> list[str]:
    every = [arm for group in groups for arm in group]
    return lines(advised(every, frontiers(every, [])), "first")


def test_the_choice_stands_beside_narrow_networks_and_the_dense_one() -> None:
    found = told(
        arms("dense", 1, 0.9, 0.9),
        arms("narrow(cost=weights)", 0.02, 0.6, 0.62, nonzeros=20, parameters=20, multiply_adds=100),
        arms("snip", 0.02, 0.65, 0.67, nonzeros=20, parameters=200),
        arms("synflow", 0.02, 0.7, 0.72, nonzeros=20, parameters=80, multiply_adds=2000, dense_ms=3.0),
    )
    assert found == [
        "net on digits, density 0.02: synflow, accuracy 0.710 (n=2; dense 0.900), clearly better than snip",
        "  +10.0 points beside a narrower dense network of as many non-zero weights (n=2)",
        "  12.5 times fewer parameters once the dead channels are gone (80 of 1,000), 2,000 of 8,000 multiply-adds, "
        "1.5 times the speed on 32 images at once (n=2)",
        "autosparse compact first synflow@0.02 --out small",
    ]


def test_without_a_smaller_network_there_is_no_command_and_nothing_is_said_of_what_was_not_run() -> None:
    assert told(arms("snip", 0.1, 0.7, nonzeros=100)) == [
        "net on digits, density 0.1: snip, accuracy 0.700 (n=1), the only method there is"
    ]
    assert told(arms("dense", 1, 0.9)) == []


def test_the_smallest_network_of_several_densities_is_the_one_of_the_command() -> None:
    found = told(arms("dense", 1, 0.9), arms("snip", 0.1, 0.8, parameters=500), arms("snip", 0.02, 0.7, parameters=100))
    assert found[-1] == "autosparse compact first snip@0.02 --out small"
    assert [line for line in found if "2.0 times fewer parameters" in line] and all("times the speed" not in line for line in found)


def test_the_opening_is_about_the_smallest_network_and_claims_no_lead() -> None:
    every = arms("dense", 1, 0.9) + arms("snip", 0.1, 0.8, parameters=500) + arms("snip", 0.02, 0.7, parameters=100)
    assert (
        opening(advised(every, frontiers(every, [])))
        == "At density 0.02 snip reaches accuracy 0.700 (dense 0.900) with 10.0 times fewer parameters."
    )
    alone = arms("snip(grain=channels)", 0.25, 0.8)
    assert opening(advised(alone, frontiers(alone, []))) == "At share 0.25 snip(grain=channels) reaches accuracy 0.800."
    assert opening([]) == ""
