"""Tables in Markdown."""

from collections.abc import Iterable, Sequence


def markdown(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table, every line with its line end; a bar in a cell is escaped, else it would begin another one.

    Raises ValueError for a line that has not one cell for each of `head`.
    """
    cells = [[cell for _, cell in zip(head, line, strict=True)] for line in lines]
    return "".join([_line(head), f"|{'---|' * len(head)}\n", *map(_line, cells)])


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |\n"
