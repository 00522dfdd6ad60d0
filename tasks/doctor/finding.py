"""What a check of `autosparse doctor` finds: fine, or a warning; what is wrong is raised, in the line that a run would end with."""

from dataclasses import dataclass

OK, WARNING, WRONG = "ok", "warning", "wrong"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line about one thing; `mend` is what to type or set where something is to be mended."""

    state: str
    said: str
    mend: str | None = None


def ok(said: str) -> Finding:
    """Nothing to do."""
    return Finding(state=OK, said=said)


def warning(said: str, mend: str | None = None) -> Finding:
    """A run works, but not as well as it could, or with something that its owner may not expect."""
    return Finding(state=WARNING, said=said, mend=mend)
