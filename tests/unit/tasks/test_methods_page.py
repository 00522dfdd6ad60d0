"""docs/methods.md says what the registry says."""

from autosparse.models.methods.registry import METHODS
from autosparse.tasks.methods_page import BEGIN, END, PAGE, table, with_table


def test_the_page_has_the_table_of_the_registry() -> None:
    page = PAGE.read_text()
    assert page.count(BEGIN) == page.count(END) == 1
    assert with_table(page) == page, "the methods have changed: run `python -m autosparse.tasks.methods_page`"


def test_every_method_stands_there_with_its_card() -> None:
    for name, method in METHODS.items():
        assert f"**`{name}`**" in table() and method.card in table()


def test_only_what_is_between_the_marks_is_made_anew() -> None:
    assert with_table(f"before\n{BEGIN}old\n{END}after\n") == f"before\n{BEGIN}\n{table()}\n{END}after\n"
