"""Which of two registered scorers is the champion, by the tags of their versions, and among which scorers each alias is fought for."""

import hashlib
import re
from collections.abc import Mapping

COMPARED = ("data_digest", "label", "sources", "held_out_on")  # the same in both: the figures are of the same held-out rows
CHAMPION = "champion"
GROUP = ("data", "label")  # a champion of its own for each
LONGEST = 100  # characters of data and label in an alias

Tags = Mapping[str, str]


def beats(tags: Tags, champion: Tags) -> bool:
    """Whether the scorer with these tags takes the alias from the champion.

    By the held-out figure where both were judged on the same: data, label, source networks. Else figures say nothing, and the one that
    learned from more weights has it, so that no smoke run takes it from a real one. Versions without tags, of earlier releases, are
    compared by the figure.
    """
    if any(tags[name] != champion[name] for name in COMPARED if name in tags and name in champion):
        return int(tags.get("rows", 0)) > int(champion.get("rows", 0))
    return float(tags["held_out"]) > float(champion.get("held_out", "-inf"))


def group_alias(tags: Tags) -> str | None:
    """`champion-DATA-LABEL`, for scorers of the same data and label; None of earlier releases, which do not say both.

    An alias takes letters, digits, `_` and `-` alone: a name with others ends in a digest of it, so that no two names share an alias.
    """
    if not all(tags.get(name) for name in GROUP):
        return None
    return "-".join([CHAMPION, *(_plain(tags[name]) for name in GROUP)])


def contested(alias: str, tags: Tags) -> bool:
    """Whether a scorer with these tags may hold the alias: `champion` any, others those of its data and label."""
    return "held_out" in tags and alias in (CHAMPION, group_alias(tags))


def _plain(name: str) -> str:
    plain = re.sub(r"[^a-z0-9_]+", "-", name.lower()).strip("-")[: LONGEST // 2]
    return plain if plain == name else f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:6]}".lstrip("-")
