"""What a mask keeps, as a table in plain text."""

from collections.abc import Mapping, Sequence
from math import prod

from torch import Tensor

from autosparse.library.mask_file import Shape
from autosparse.models.networks.flops import weight_name


class Text(str):
    """A text that shows its lines, where a prompt or a notebook would show a string with quotes."""

    __slots__ = ()
    __repr__ = str.__str__


def layer_table(mask: Mapping[str, Tensor], macs: Mapping[str, int] | None = None) -> list[str]:
    """A line per layer and one for all: shape, kept weights, density; multiply-adds, left and dense, where they are known."""
    rows = [["layer", "shape", "kept", "density"]]
    rows[0] += ["multiply-adds", "dense"] if macs is not None else []
    for name, keep in mask.items():
        row = [name, shown(keep.shape), f"{int(keep.count_nonzero()):,}", f"{_share(keep):.3g}"]
        if macs is not None:
            dense = macs.get(weight_name(name))
            row += ["not counted", ""] if dense is None else [f"{round(dense * _share(keep)):,}", f"{dense:,}"]
        rows.append(row)
    kept, total = sum(int(keep.count_nonzero()) for keep in mask.values()), sum(keep.numel() for keep in mask.values())
    rows.append(["all", "", f"{kept:,}", f"{kept / max(total, 1):.3g}", *[""] * (len(rows[0]) - 4)])
    return aligned(rows)


def outside_lines(outside: Mapping[str, Shape], total: int, why: Mapping[str, str]) -> list[str]:
    """What stays dense of a network with `total` weights in its mask: matrices by name, with the reason; vectors by their number."""
    sizes = {name: prod(shape) for name, shape in outside.items()}
    count, everything = sum(sizes.values()), sum(sizes.values()) + total
    lines = [f"outside the mask: {count:,} of {everything:,} parameters ({count / max(everything, 1):.2%}) stay dense"]
    matrices = [name for name, shape in outside.items() if len(shape) > 1]
    lines += aligned([[f"  {name}", shown(outside[name]), f"{sizes[name]:,}", why.get(name, "")] for name in matrices])
    if vectors := [sizes[name] for name in outside if name not in matrices]:
        lines.append(f"  {len(vectors)} vectors (biases, norms): {sum(vectors):,}")
    return lines


def shown(shape: Sequence[int]) -> str:
    """A shape as 64x3x7x7."""
    return "x".join(map(str, shape))


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Cells in columns: the first two to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ([cell.ljust(width) for cell, width in zip(row[:2], widths, strict=False)] for row in rows)
    numbers = ([cell.rjust(width) for cell, width in zip(row[2:], widths[2:], strict=True)] for row in rows)
    return ["  ".join([*line, *number]).rstrip() for line, number in zip(lines, numbers, strict=True)]


def _share(keep: Tensor) -> float:
    return int(keep.count_nonzero()) / max(keep.numel(), 1)
