"""Names from outside: what can be imported, and one line for everything that cannot."""

import pytest

from autosparse.models.errors import SpecError
from autosparse.models.imported import check_call, check_callable, import_object, is_outside
from tests.plugins import outside

HERE = "tests.plugins.outside"


def test_an_object_and_what_is_inside_it() -> None:
    assert import_object("field", f"{HERE}:size", "x") is outside.size
    assert import_object("field", f"{HERE}:DECAY.card", "x") == "Weight decay c, for tests."


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("my_pkg.mine:taylor", True),
        ("Mine:_inner.METHOD", True),
        *((name, False) for name in ("snip", "a:", ":b", "a:b:c", "a:b c", "a:b+c")),
    ],
)
def test_how_names_from_outside_are_written(name: str, found: bool) -> None:
    assert is_outside(name) == found


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("no_such_package.mine:x", "not importable: No module named 'no_such_package'"),
        ("tests.plugins.no_such_module:x", "not importable: No module named 'tests.plugins.no_such_module'"),
        ("tests.plugins.broken:x", "not importable: RuntimeError: no licence found"),
        ("tests.plugins.leaves:x", "not importable: SystemExit: 3"),
        (f"{HERE}:missing", f"no such object: module '{HERE}' has no attribute 'missing'"),
        (f"{HERE}:DECAY.missing", "no such object: 'Method' object has no attribute 'missing'"),
        (f"{HERE}:", f"no such object: module '{HERE}' has no attribute ''"),
        (":x", "not importable: ValueError: Empty module name"),
        (".relative:x", "not importable: the 'package' argument is required"),
    ],
)
def test_what_cannot_be_imported_is_one_line(name: str, why: str) -> None:
    with pytest.raises(SpecError) as caught:
        import_object("field", name, "a thing")
    assert str(caught.value).startswith(f"field: '{name}' is not allowed; allowed: a thing ({why}")
    assert "\n" not in str(caught.value)


def test_the_text_of_an_error_is_cut() -> None:
    with pytest.raises(SpecError) as caught:
        import_object("field", f"{'a' * 3000}:x", "a thing")
    assert len(str(caught.value)) < 600


def test_what_is_called_must_take_what_it_will_get() -> None:
    check_call("field", "a:b", lambda first, *, second: None, "x", 1, second=2)
    with pytest.raises(
        SpecError, match=r"^field: 'a:b' is not allowed; allowed: x \(wrong signature: missing a required argument: 'second'\)$"
    ):
        check_call("field", "a:b", lambda first, *, second: None, "x", 1)
    with pytest.raises(SpecError, match=r"\(not callable: it is a int\)$"):
        check_callable("field", "a:b", 3, "x")
    with pytest.raises(SpecError, match=r"\(wrong signature: "):
        check_call("field", "a:b", dict, "x", 1)
