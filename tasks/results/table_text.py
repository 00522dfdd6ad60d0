"""A result table as people read it (Markdown, LaTeX) and as programs do (CSV)."""

import csv
import io
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from autosparse.models.specs.grain import WEIGHTS, Cost
from autosparse.models.specs.run_specs import DENSE
from autosparse.tasks.results.markdown import markdown
from autosparse.tasks.results.measured import gain, metric_of, title_of
from autosparse.tasks.results.rows import cell, compacted, share
from autosparse.tasks.results.table import COSTS, SIGNIFICANT, Line, ResultTable, plain_line

LATEX = {"\\": r"\textbackslash{}", "±": r"$\pm$", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}"}
LATEX |= {">": r"\textgreater{}", **{sign: f"\\{sign}" for sign in "&%$#_{}"}}
COST_HEAD = ("density", "of all parameters", "on paths", "MACs to infer", "MACs to train", "seconds", "peak MiB")


@dataclass(frozen=True, kw_only=True)
class Block:
    """One table: what stands above it, its head, its lines, and which cells are bold. `words` columns are text, the others figures."""

    title: str
    head: list[str]
    lines: list[list[str]]
    bold: frozenset[tuple[int, int]] = frozenset()  # line, column
    words: int = 1


def markdown_text(table: ResultTable, *, costs: bool = False) -> str:
    """The table, the tests behind it, and what has to be said of both."""
    blocks = [*value_blocks(table), *_test_blocks(table), *(_cost_blocks(table) if costs else [])]
    parts = [f"{block.title}\n\n{markdown(block.head, _marked(block, '**{}**'.format))}" for block in blocks]
    return "\n".join([*parts, *(f"{note}\n" for note in [*notes(table), *table.notes])])


def latex_text(table: ResultTable) -> str:
    """A `table` for each block, for `booktabs`; the notes stand in the caption."""
    said = " ".join(notes(table))
    tables = []
    for block in value_blocks(table):
        cells = [[_tex(text) for text in line] for line in block.lines]
        rows = [[_tex(name) for name in block.head], None, *_marked(replace(block, lines=cells), r"\textbf{{{}}}".format)]
        body = "\n".join("    \\midrule" if row is None else f"    {' & '.join(row)} \\\\" for row in rows)
        columns = "l" * block.words + "r" * (len(block.head) - block.words)
        tables.append(
            f"\\begin{{table}}\n  \\centering\n  \\caption{{{_tex(block.title)} {_tex(said)}}}\n  \\begin{{tabular}}{{{columns}}}\n"
            f"    \\toprule\n{body}\n    \\bottomrule\n  \\end{{tabular}}\n\\end{{table}}\n"
        )
    comments = "".join(f"% {line}\n" for line in ["needs \\usepackage{booktabs}", *table.notes])
    return comments + "\n".join(tables)


def csv_text(table: ResultTable) -> str:
    """A row per target, data set, method, control and density, in full precision."""
    rows = [plain_line(line, table.over) for line in table.lines]
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=list(rows[0]) if rows else ["target"], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: json.dumps(value) if isinstance(value, list | dict | bool) else value for name, value in row.items()})
    return out.getvalue()


def notes(table: ResultTable) -> list[str]:
    """What a reader must know to read the table; those of its runs (`table.notes`) are not among them."""
    rivals = [(line, line.rival) for line in table.lines if line.rival]
    left = [f"{_at(line)} ({test.why})" for line, test in rivals if test.corrected is None]
    several = [name for name in ("target", "dataset") if len({line.row[name] for line, _ in rivals}) > 1]
    several += ["track"] if len({line.track for line, _ in rivals}) > 1 and not table.against else []
    column = " among lines of one ".join(["its column", *filter(None, [" and ".join([*table.over, *several])])])
    test = f"paired t-test by seed, p < {SIGNIFICANT:.2g} after Holm's correction for {column}"
    if not rivals:
        found = ["Nothing is compared: no two methods stand in one column."]
    elif len(left) == len(rivals):
        found = [f"No test ({', '.join(sorted({test.why for _, test in rivals}))}), so nothing is bold."]
    elif table.against:
        found = [f"Bold: significantly better than {table.against} ({test})."]
    else:
        found = [f"Bold: the best of {column}, and what these seeds do not tell from it: not significantly worse ({test})."]
    if left and len(left) < len(rivals):
        found.append(f"Not tested: {', '.join(left)}.")
    if said := compacted([line.row for line in table.lines]):
        found.append(said)
    return found


def _at(line: Line) -> str:
    return f"{line.name}@{line.row['density']:g}"


def value_blocks(table: ResultTable) -> list[Block]:
    """A block per kind of density, a column per density; then the methods without a density target, where they landed."""
    kinds: dict[Cost, None] = dict.fromkeys(
        line.cost for line in table.lines if line.row["density"] is not None and line.row["method"] != DENSE
    )
    targeted = [_density_block(table, kind) for kind in (kinds or (WEIGHTS,))]
    landed = [line for line in table.lines if line.row["density"] is None]
    return [block for block in targeted if block.lines] + ([_landed_block(table, landed)] if landed else [])


def _density_block(table: ResultTable, kind: Cost) -> Block:
    dense = [line for line in table.lines if line.row["method"] == DENSE]
    mine = [line for line in table.lines if line.cost == kind and line.row["density"] is not None and line not in dense]
    densities = sorted({line.row["density"] for line in mine}, reverse=True) or [1.0]
    lines = [line for line in table.lines if line in mine or line in dense]
    names, said = _names(table, lines)
    common = _common_n(lines)
    found: dict[tuple[str, ...], dict[float, Line]] = {}
    for line in lines:
        row = found.setdefault(tuple(_named(table, line, names)), {})
        row |= dict.fromkeys(densities, line) if line in dense else {line.row["density"]: line}
    shown = [[*where, *(_value(row.get(density), common) for density in densities)] for where, row in found.items()]
    bold = {
        (number, len(names) + column)
        for number, row in enumerate(found.values())
        for column, density in enumerate(densities)
        if (line := row.get(density)) and line.test and line.test.marked
    }
    title = _title(lines, said, common)
    head = [*names, *(f"{COSTS[kind]} {density:g}" for density in densities)]
    return Block(title=title, head=head, lines=shown, bold=frozenset(bold), words=len(names))


def _landed_block(table: ResultTable, lines: list[Line]) -> Block:
    names, said = _names(table, lines)
    common = _common_n(lines)
    landed = [[share(line.row[name]) for name in ("kept_density", "density_all")] for line in lines]
    shown = [[*_named(table, line, names), *where, _value(line, common)] for line, where in zip(lines, landed, strict=True)]
    title = f"Methods without a density target, where they landed; not compared. {_title(lines, said, common)}"
    head = [*names, "density", "of all parameters", title_of(line.row for line in lines)]
    return Block(title=title, head=head, lines=shown, words=len(names))


def _test_blocks(table: ResultTable) -> list[Block]:
    """Behind the bold print: every difference with its interval and p-values."""
    lines = [(line, line.rival) for line in table.lines if line.rival and line.rival.over.n]
    if not lines:
        return []
    names, said = _names(table, [line for line, _ in lines])
    shown = []
    for line, test in lines:
        over, metric = test.over, metric_of(line.row)
        interval = f" [{gain(metric, over.low)}, {gain(metric, over.high)}]".replace(" points", "") if over.low is not None else ""
        figures = [gain(metric, over.mean) + interval, *(_p(p) for p in (over.p_value, test.corrected)), str(over.n)]
        shown.append([*_named(table, line, names), f"{COSTS[line.cost]} {line.row['density']:g}", test.against, *figures])
    title = f"Each method minus the one it is compared with, by seed, with its 95 % interval{said}."
    head = [*names, "at", "against", "difference", "p", "p (Holm)", "shared seeds"]
    return [Block(title=title, head=head, lines=shown, words=len(names) + 2)]


def _cost_blocks(table: ResultTable) -> list[Block]:
    """What the arms cost, as means over seeds; multiply-adds as shares of those of the dense network of the target."""
    dense = {(repr(line.over), line.row["target"], line.row["dataset"]): line.row for line in table.lines if line.row["method"] == DENSE}
    names, said = _names(table, table.lines)
    shown = []
    for line in table.lines:
        row = line.row
        base = dense.get((repr(line.over), row["target"], row["dataset"]), row)
        shares = [share(row[name]) for name in ("kept_density", "density_all", "effective_density")]
        macs = [_ratio(row[name], base[name]) for name in ("inference_macs", "training_macs")]
        asked = "-" if row["density"] is None else f"{COSTS[line.cost]} {row['density']:g}"
        whole = [_ratio(row["training_seconds"], 1, 0), _ratio(row["peak_memory_bytes"], 2**20, 0)]
        shown.append([*_named(table, line, names), asked, *shares, *macs, *whole])
    return [Block(title=f"What the arms cost{said}.", head=[*names, "asked", *COST_HEAD], lines=shown, words=len(names) + 1)]


def _names(table: ResultTable, lines: Iterable[Line]) -> tuple[list[str], str]:
    """The columns that say which line it is, and in words what is the same in all of them."""
    known = list(lines)
    parts = {name: {line.row[name] for line in known} for name in ("target", "dataset")}
    parts["track"] = {line.track for line in known if line.test}
    several = [name for name, values in parts.items() if len(values) > 1]
    one = [str(next(iter(parts[name]))) for name in ("target", "dataset") if name not in several and parts[name]]
    return [*table.over, *several, "method"], f", {' on '.join(one)}" if one else ""


def _named(table: ResultTable, line: Line, names: Sequence[str]) -> list[str]:
    over = dict(zip(table.over, (value if isinstance(value, str) else json.dumps(value) for value in line.over), strict=True))
    known = {**over, "target": line.row["target"], "dataset": line.row["dataset"], "track": line.track, "method": line.name}
    return [known[name] for name in names]


def _title(lines: Sequence[Line], said: str, common: int | None) -> str:
    n = f"n = {common}" if common else "n in brackets"
    return f"Test {title_of(line.row for line in lines)}, last epoch{said}: mean ± standard deviation over seeds, {n}."


def _common_n(lines: Sequence[Line]) -> int | None:
    """The n of all of them, where it is the same and nothing failed."""
    found = {(line.row["n"], line.row["failed"]) for line in lines}
    return next(iter(found))[0] if len(found) == 1 and not next(iter(found))[1] else None


def _value(line: Line | None, common: int | None) -> str:
    if line is None:
        return ""
    text, row = cell(line.row), line.row
    if common is not None:
        return text.removesuffix(f" (n={common})")
    return text.replace(f"(n={row['n']})", f"(n={row['n']}, {row['failed']} failed)") if row["failed"] else text


def _marked(block: Block, bold: Callable[[str], str]) -> list[list[str]]:
    lines = enumerate(block.lines)
    return [[bold(text) if (number, column) in block.bold else text for column, text in enumerate(line)] for number, line in lines]


def _p(value: float | None) -> str:
    return "-" if value is None else f"{value:.2g}"


def _ratio(value: float | None, base: float | None, digits: int = 3) -> str:
    return f"{value / base:.{digits}f}" if value is not None and base else "-"


def _tex(text: str) -> str:
    return "".join(LATEX.get(sign, sign) for sign in text)
