"""The table of methods in docs/methods.md, made of the registry: `python -m autosparse.tasks.methods_page` writes it anew."""

from pathlib import Path

from autosparse.models.methods.names import spelled
from autosparse.models.methods.registry import METHODS
from autosparse.models.specs.fields import to_plain

PAGE = Path(__file__).resolve().parents[1] / "docs/methods.md"
BEGIN, END = "<!-- table of the registry: python -m autosparse.tasks.methods_page -->\n", "<!-- end of the table -->\n"


def table() -> str:
    """One section per method: its levels, its settings with their defaults, and its card."""
    return "\n".join(_section(name) for name in METHODS)


def with_table(page: str) -> str:
    """The page with the table between its two marks made anew."""
    before, _, rest = page.partition(BEGIN)
    return before + BEGIN + "\n" + table() + "\n" + END + rest.partition(END)[2]


def _section(name: str) -> str:
    method = METHODS[name]
    settings = ", ".join(f"{field}={value}" for field, value in to_plain(method.settings()).items())
    lands = "takes the densities of the fan-out" if method.by_density else "has no density target and lands where its settings take it"
    levels = ", ".join(f"`{level}`" for level in spelled("methods", name))
    return f"**`{name}`** {lands}. Levels: {levels}. Settings and defaults: `{settings}`. {method.card}\n"


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text()))
