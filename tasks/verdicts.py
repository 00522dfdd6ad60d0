"""What the numbers of a run say, in words: gap closure, controls, headline. Pure functions of result rows."""

from dataclasses import dataclass

from models.controls import SIGN
from models.criteria.registry import CRITERIA
from models.specs import LEARNED, LOOKING_AHEAD, SCORER, TICKET
from tasks.result_rows import Row

POINT = 0.01  # one percentage point of test accuracy: smaller differences decide nothing
# control -> (what it says when accuracy falls by a point, and when it does not)
WORDS = {
    "shuffle": ("weights matter", "only layer densities matter"),
    "reinit": ("initial values matter", "initial values do not matter"),
    "invert": ("the order of scores matters", "the order of scores does not matter"),
}


@dataclass(frozen=True, kw_only=True)
class Gap:
    """Where a learned scorer (`method`) stands between the best criterion at initialization and the ticket.

    `closure` is None where `why` says so. Criteria that look ahead are no rivals: they are a track of their own.
    """

    method: str
    target: str
    dataset: str
    density: float
    scorer: float | None
    best: float | None
    best_name: str
    ticket: float | None
    closure: float | None
    why: str = ""

    @property
    def lead(self) -> float | None:
        """Accuracy of the scorer above that of the best criterion."""
        return None if self.scorer is None or self.best is None else self.scorer - self.best


@dataclass(frozen=True, kw_only=True)
class Control:
    """A control beside its method at one density; `difference` is control - method."""

    target: str
    dataset: str
    method: str
    control: str
    density: float
    base: float | None
    accuracy: float | None
    difference: float | None
    n: int
    verdict: str


def panels(rows: list[Row]) -> list[tuple[str, str]]:
    """Targets and data sets in the order of the rows."""
    return list(dict.fromkeys((row["target"], row["dataset"]) for row in rows))


def densities(rows: list[Row]) -> list[float]:
    """Densities below 1 that were asked for, falling."""
    return sorted({row["density"] for row in rows if row["density"] is not None and row["density"] < 1}, reverse=True)


def gaps(rows: list[Row]) -> list[Gap]:
    """(scorer - best criterion) / (ticket - best criterion) of mean accuracies, per target, data set, density and learned scorer."""
    found = []
    for target, dataset in panels(rows):
        mine = [row for row in rows if (row["target"], row["dataset"]) == (target, dataset)]
        for density in densities(mine):
            means = {row["method"]: row["mean"] for row in mine if row["density"] == density}
            found += [_gap(target, dataset, density, means, method) for method in LEARNED if method == SCORER or method in means]
    return found


def _gap(target: str, dataset: str, density: float, means: dict[str, float | None], method: str) -> Gap:
    strict = set(CRITERIA) - set(LOOKING_AHEAD)
    criteria = {name: mean for name, mean in means.items() if name in strict and mean is not None}
    name = max(criteria, key=criteria.__getitem__, default="")
    scorer, ticket, best = means.get(method), means.get(TICKET), criteria.get(name)
    missing = [what for what, mean in ((method, scorer), ("criterion", best), (TICKET, ticket)) if mean is None]
    closure, why = None, f"no {' and no '.join(missing)}"
    if scorer is not None and ticket is not None and best is not None:
        if ticket > best:
            closure, why = (scorer - best) / (ticket - best), ""
        else:
            why = "the ticket is not above the best criterion"
    return Gap(
        method=method,
        target=target,
        dataset=dataset,
        density=density,
        scorer=scorer,
        best=best,
        best_name=name,
        ticket=ticket,
        closure=closure,
        why=why,
    )


def controls(rows: list[Row]) -> list[Control]:
    """Every row of a method `METHOD+CONTROL` beside METHOD at the same target and density."""
    cells = {(row["target"], row["dataset"], row["method"], row["density"]): row for row in rows}
    found = []
    for (target, dataset, name, density), row in cells.items():
        method, sign, control = name.rpartition(SIGN)
        if not sign or not method:
            continue
        base = cells.get((target, dataset, method, density), {}).get("mean")
        difference = row["mean"] - base if row["mean"] is not None and base is not None else None
        found.append(
            Control(
                target=target,
                dataset=dataset,
                method=method,
                control=control,
                density=density,
                base=base,
                accuracy=row["mean"],
                difference=difference,
                n=row["n"],
                verdict=_verdict(control, difference),
            )
        )
    return sorted(found, key=lambda one: (one.target, one.dataset, one.method, one.control, -one.density))


def _verdict(control: str, difference: float | None) -> str:
    if difference is None:
        return "not defined: an accuracy is missing"
    falls, holds = WORDS.get(control, ("accuracy falls", "accuracy does not fall"))
    return falls if round(difference, 9) <= -POINT else holds  # rounded: .80 - .81 is not -.01 in binary


def standing(gap: Gap) -> str:
    """The scorer beside the best criterion: `ahead`, `behind` or `level` (less than a point apart), or `open`."""
    if gap.lead is None:
        return "open"
    lead = round(gap.lead, 9)
    return "ahead" if lead >= POINT else "behind" if lead <= -POINT else "level"


def headline(found: list[Gap]) -> str:
    """One sentence on the scorer over all targets and densities."""
    places = [standing(gap) for gap in found if gap.method == SCORER]
    judged = [place for place in places if place != "open"]
    if not judged:
        return "No verdict yet: there is no density with both the scorer and a criterion."
    counts = {place: judged.count(place) for place in ("ahead", "level", "behind")}
    cells = "the one density" if len(judged) == 1 else f"{len(judged)} densities"
    if len(set(judged)) == 1:
        words = {"ahead": "beats", "level": "is level with", "behind": "is behind"}[judged[0]]
        return f"The scorer {words} the best criterion at {'' if len(judged) == 1 else 'all '}{cells}."
    parts = [f"{place} at {count}" for place, count in counts.items() if count]
    return f"Against the best criterion the scorer is {', '.join(parts[:-1])} and {parts[-1]} of {cells}."
