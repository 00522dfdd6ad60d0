"""Markdown tables, letter by letter."""

import pytest

from autosparse.tasks.results.markdown import markdown


def test_a_table_letter_by_letter() -> None:
    assert markdown(["a", "b"], [["1", ""], ("x y", "±")]) == "| a | b |\n|---|---|\n| 1 |  |\n| x y | ± |\n"
    assert markdown(["a"], []) == "| a |\n|---|\n"


def test_a_bar_in_a_name_begins_no_cell() -> None:
    assert markdown(["data set"], [["mine|yours"]]).splitlines()[2] == r"| mine\|yours |"


@pytest.mark.parametrize("line", [["1"], ["1", "2", "3"]])
def test_a_line_with_too_few_or_too_many_cells_is_refused(line: list[str]) -> None:
    with pytest.raises(ValueError, match="zip"):
        markdown(["a", "b"], [line])
