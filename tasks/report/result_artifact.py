"""The result of a run as Prefect shows it: markdown that opens with the verdict and the picture. Pictures are addresses, never data."""

from collections.abc import Mapping

from autosparse.tasks.results.rows import Row, markdown_table
from autosparse.tasks.results.said import best


def result_markdown(rows: list[Row], verdict: str, arms: int, picture: str | None, links: Mapping[str, str | None]) -> str:
    """The verdict, the best arm, the picture where a server shows it, the table, and where to look further.

    `links`: text -> address; what is no web page is shown as it is, what is None is left out.
    """
    parts = [f"## {verdict}", f"{best(rows, arms)}."]
    parts += [f"![What was reached over density, one line per method]({picture})"] if picture else []
    parts += [markdown_table(rows).strip()]
    shown = [f"- [{text}]({where})" if where.startswith("http") else f"- {text}: `{where}`" for text, where in links.items() if where]
    return "\n\n".join([*parts, "\n".join(shown)]) + "\n"
