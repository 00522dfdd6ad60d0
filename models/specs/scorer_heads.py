"""What a scorer's second head can be: one of three kinds, each with its own settings and no other's.

In memory a head is one of these. A spec spells it flat, as `allocation` and the settings of all kinds side by side, because stored specs
and the fingerprints that name results do; `ScorerSpec` goes from there to here and refuses settings of a kind that was not chosen.
"""

from dataclasses import asdict, dataclass, fields
from typing import Annotated, Any, ClassVar

from autosparse.models.errors import not_allowed
from autosparse.models.specs.fields import Spec
from autosparse.models.specs.rules import Range

TILTS = 6  # the length of allocation_head.CONTEXT, which a test compares


class PerContext:
    """A number for each entry of the head's CONTEXT, or none at all."""

    def check(self, field: str, value: tuple[float, ...]) -> None:
        """Raise SpecError naming `field` for any other length."""
        if len(value) not in (0, TILTS):
            raise not_allowed(field, list(value), str(self))

    def __str__(self) -> str:
        return f"{TILTS} numbers, or none"

    def __get_pydantic_json_schema__(self, core_schema: Any, handler: Any) -> dict[str, Any]:
        return dict(handler(core_schema)) | {"maxItems": TILTS}


Strength = Annotated[float, Range(least=0)]
Share = Annotated[float, Range(least=0, most=1)]
Tilt = Annotated[tuple[float, ...], PerContext()]


@dataclass(frozen=True, kw_only=True, slots=True)
class Head(Spec):
    """Base of the kinds; `kind` is what `allocation` says."""

    kind: ClassVar[str]

    @property
    def spelled(self) -> dict[str, Any]:
        """The head as fields of a `ScorerSpec`."""
        return {"allocation": self.kind, **asdict(self)}


@dataclass(frozen=True, kw_only=True, slots=True)
class GlobalHead(Head):
    """No second head: the scores of all layers compete as they are."""

    kind: ClassVar[str] = "global"


@dataclass(frozen=True, kw_only=True, slots=True)
class LearnedHead(Head):
    """Layer densities learned from tickets (models/scorers/allocation_head.py).

    Held-out layers are unseen in its evaluation, but the head that is kept is fitted once more to every layer of the training seeds.
    `sharpness` says how far the ranking from the state at initialization counts inside a layer (None = as it is, 0.0 = at random).
    `tilt` is added to the head's slopes, one number per entry of its CONTEXT: what tickets do not teach, found by trying arms on
    validation images of seeds that are neither in `irp.seeds` nor in `fanout.seeds`.
    """

    kind: ClassVar[str] = "learned"

    sharpness: Strength | None
    tilt: Tilt


@dataclass(frozen=True, kw_only=True, slots=True)
class PathsHead(Head):
    """Paths compete by the ranking inside layers (models/criteria/paths.py).

    `contrast` per ln(1 / density): a ranking counts for more the fewer weights are left, 1.0 = the best of a layer is
    1 / density times as strong as its worst. Where the scorer looks ahead, growth is worth more trust: `contrast_ahead`, and
    `blend` is the share of the learned ranking beside it, `candidates` the density of the network that looks ahead, chosen by the
    ranking: below 1.0 nothing else is kept at smaller densities. `hubs_ahead` below 1.0 spreads the paths of what grows over more
    channels than SynFlow does: with less known of its weights than growth, a mask is better off with few strong channels.
    """

    kind: ClassVar[str] = "paths"

    contrast: Strength
    contrast_ahead: Strength
    blend: Share
    candidates: Annotated[float, Range(above=0, most=1)] = 1.0  # cards of earlier scorers name neither of these
    hubs_ahead: Share = 1.0


ScorerHead = GlobalHead | LearnedHead | PathsHead
HEADS: dict[str, type[GlobalHead] | type[LearnedHead] | type[PathsHead]] = {
    head.kind: head for head in (GlobalHead, LearnedHead, PathsHead)
}
OWNERS = {one.name: kind for kind, head in HEADS.items() for one in fields(head)}  # setting -> the kind that has it

# The head that held up best (docs/results-archive.md): that of the recipes, and of the rules of thumb that a scorer has to beat.
CHAMPION_HEAD = PathsHead(contrast=1.0, contrast_ahead=1.0, blend=0.0, candidates=0.2, hubs_ahead=0.25)
