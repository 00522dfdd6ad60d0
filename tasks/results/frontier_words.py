"""Frontiers as people read them: a sentence and a table."""

from collections.abc import Iterable, Sequence

from autosparse.models.training.objective import ACCURACY, Metric
from autosparse.tasks.results.costs import COINS
from autosparse.tasks.results.frontier import OUTSIDE, UNPAIRED, VERDICTS, Frontier, Place, Point
from autosparse.tasks.results.markdown import markdown
from autosparse.tasks.results.measured import gain, scaled

NO_BASELINE = (
    "No narrower dense network has been trained: there is no baseline at equal cost, and the frontier is among these methods alone."
)
LEGEND = (
    "A * is on the frontier: nothing has lower or equal cost and is better. Signed figures are the gain over narrower dense networks at "
    "equal cost (of accuracy in points), above 0 better, mean over seeds; outside: there is none of that cost; other seeds: none has the "
    "seed of this point."
)
DASH = "-"
SUMMARY = ("cost", "on the frontier, at which cost", "beside narrow networks, gain at equal cost")


def sentence(found: Frontier) -> str:
    """How many points are above narrower dense networks, by every kind of cost, and the best of them."""
    if not found.baseline:
        return NO_BASELINE
    parts, none, unknown = [], [], []
    for coin in (coin for coin in COINS if coin.key in found.coins):
        places = [(point, point.places[coin.key]) for point in found.points if coin.key in point.places and not point.in_baseline]
        compared = [(point, place) for point, place in places if place.verdict not in (OUTSIDE, UNPAIRED)]
        if above := [(place.over.mean or 0.0, point.name) for point, place in compared if place.verdict == "above"]:
            what = "" if parts else " sparse networks are above a narrower dense one"
            lead, best = max(above)
            beyond = f"; {len(places) - len(compared)} not compared" if len(places) > len(compared) else ""
            parts.append(
                f"at equal {coin.words} {len(above)} of {len(compared)}{what} (best: {best}, {gain(found.metric, lead, 1)}{beyond})"
            )
        elif places:
            (none if compared else unknown).append(coin.words)
    if none:
        parts.append(f"at equal {_listed(none)} {'none' if parts else 'no sparse network is above a narrower dense one'}")
    if unknown:
        parts.append(f"at equal {_listed(unknown)} there is no narrow network to compare with")
    text = "; ".join(parts) or "no sparse network says what it costs"
    return f"{text[0].upper()}{text[1:]}."


def frontier_summary(found: Frontier) -> list[list[str]]:
    """A line per kind of cost, as SUMMARY names its cells: points on the frontier with their cost, and points by verdict."""
    lines = []
    for coin in (coin for coin in COINS if coin.key in found.coins):
        places = sorted(
            ((point, point.places[coin.key]) for point in found.points if coin.key in point.places), key=lambda one: one[1].cost
        )
        best = [f"{point.name} {amount(place.cost)}" for point, place in places if place.on_frontier]
        verdicts: dict[str, list[str]] = {}
        for point, place in places:
            if place.verdict:
                more = f" {scaled(found.metric, place.over.mean)}" if place.over.mean is not None else ""
                verdicts.setdefault(place.verdict, []).append(point.name + more)
        lines.append(
            [
                coin.title,
                ", ".join(best),
                "\n".join(
                    f"{verdict}: {', '.join(names)}" for verdict in (*VERDICTS.values(), UNPAIRED) if (names := verdicts.get(verdict))
                ),
            ]
        )
    return lines


def frontier_head(found: Frontier) -> list[str]:
    """The columns of the table, as `frontier_cells` fills them."""
    irp = ["IRP seconds"] if has_irp(found) else []
    return ["method", found.metric.title, *(coin.title for coin in COINS if coin.key in found.coins), *irp]


def frontier_cells(found: Frontier, point: Point) -> list[str]:
    """One line of the table."""
    failed = f", {point.failed} failed" if point.failed else ""
    irp = [amount(point.irp_seconds) if point.irp_seconds else DASH] if has_irp(found) else []
    places = [point.places.get(key) for key in found.coins]
    return [
        point.name,
        f"{point.value:.4f} (n={point.n}{failed})",
        *(shown(place, found.metric) if place else DASH for place in places),
        *irp,
    ]


def frontier_table(found: Iterable[Frontier]) -> str:
    """A sentence and a table per target, in Markdown."""
    parts = [
        f"## {one.target} on {one.dataset}\n\n{sentence(one)}\n\n"
        + markdown(frontier_head(one), (frontier_cells(one, point) for point in one.points))
        for one in found
    ]
    return "\n".join([*parts, f"{LEGEND}\n"])


def shown(place: Place, metric: Metric = ACCURACY) -> str:
    """`6,150* +7.6 above`: the cost, whether it is on the frontier, and what it gains over narrow networks."""
    cost = amount(place.cost) + ("*" if place.on_frontier else "")
    more = f" {scaled(metric, place.over.mean)}" if place.over.mean is not None else ""
    return f"{cost}{more}{f' {place.verdict}' if place.verdict else ''}"


def amount(cost: float) -> str:
    """A cost in three or four digits: 6,146, 49.1M, 0.334."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e5, "k")):
        if cost >= size:
            return f"{cost / (1e3 if letter == 'k' else size):.3g}{letter}"
    return f"{cost:,.0f}" if cost >= 100 else f"{cost:.3g}"


def has_irp(found: Frontier) -> bool:
    """Whether some point was made by an IRP."""
    return any(point.irp_seconds for point in found.points)


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
