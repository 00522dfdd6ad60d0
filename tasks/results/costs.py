"""What an arm costs, in every coin that a person pays in, from its report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from autosparse.tasks.results.arm_reports import Report

Costs = dict[str, float | None]


@dataclass(frozen=True, slots=True)
class Coin:
    """One kind of cost: its key, how a sentence and how a table call it, and its unit where the words do not say it."""

    key: str
    words: str
    title: str
    unit: str = ""


SECONDS = "seconds"
COINS = (
    Coin("nonzeros", "non-zero weights", "non-zeros"),
    Coin("bytes", "bytes", "bytes"),
    Coin("parameters", "parameters stored as dense", "parameters"),
    Coin("multiply_adds", "multiply-adds", "multiply-adds"),
    Coin(SECONDS, "training seconds", "seconds"),
    Coin("latency_ms_1", "latency of one image", "ms, 1 image", "ms"),
    Coin("latency_ms_32", "latency of 32 images", "ms, 32 images", "ms"),
)


def deployed_costs(report: Report) -> dict[str, float]:
    """The costs of the network that an arm leaves, by COINS and without SECONDS; empty for a report that says nothing of them."""
    found = report.get("deployed")
    if not found:
        return {}
    latencies = {f"latency_ms_{images}": measured["median"] for images, measured in found["latency_ms"].items()}
    return {**{name: found[name] for name in ("nonzeros", "parameters", "multiply_adds")}, "bytes": found["bytes"]["best"], **latencies}


def costs_of(report: Report, scoring: float | None) -> Costs:
    """All costs of an arm; None = not measured. `scoring` are the seconds of its scoring, a lookahead among them: 0 without one."""
    training, known = report.get("training_seconds"), deployed_costs(report)
    seconds = None if training is None or scoring is None else training + scoring
    return {coin.key: seconds if coin.key == SECONDS else known.get(coin.key) for coin in COINS}


def scoring_seconds(scores: Sequence[Report]) -> Mapping[tuple[str, int, str], float | None]:
    """(target, seed, method) -> seconds of that scoring, None in reports that do not say; controls have none of their own."""
    return {
        (report["target"], report["seed"], report["method"]): report.get("scoring_seconds") for report in scores if not report["control"]
    }
