"""What a run has in one place, and its removal."""

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Place:
    """`what` goes, in words ("" for nothing), its bytes (0 where the place does not say), and what stays, a line each with the reason."""

    place: str
    what: str = ""
    size: int = 0
    stays: tuple[str, ...] = ()
    remove: Callable[[], None] = field(default=lambda: None, repr=False)
