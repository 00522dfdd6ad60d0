"""The page says what the tests do, and the tests have every row of the matrix."""

from tests.faults.matrix import ROWS, rows
from tests.faults.page import PAGE, page


def test_the_page_is_the_one_that_the_tests_make() -> None:
    assert PAGE.read_text() == page(), "python -m tests.faults.page"


def test_every_row_has_a_test() -> None:
    assert {row.number for row in rows()} >= set(ROWS)
