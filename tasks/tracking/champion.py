"""Which of two registered scorers is the champion, by the tags of their versions."""

from collections.abc import Mapping

COMPARED = ("data_digest", "label", "sources", "held_out_on")  # the same in both: the figures are of the same held-out rows


def beats(tags: Mapping[str, str], champion: Mapping[str, str]) -> bool:
    """Whether the scorer with these tags takes the alias from the champion.

    By the held-out figure where both were judged on the same: data, label, source networks. Else figures say nothing, and the one that
    learned from more weights has it, so that no smoke run takes it from a real one. Versions without tags, of earlier releases, are
    compared by the figure.
    """
    if any(tags[name] != champion[name] for name in COMPARED if name in tags and name in champion):
        return int(tags.get("rows", 0)) > int(champion.get("rows", 0))
    return float(tags["held_out"]) > float(champion.get("held_out", "-inf"))
