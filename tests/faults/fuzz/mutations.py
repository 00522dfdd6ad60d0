"""Strategies that spoil what was valid: bytes with flipped, cut and repeated parts, JSON with other values in other places."""

import copy
import json
from typing import Any

from hypothesis import strategies as st

Draw = Any
NUMBERS = (0, 1, -1, 2, 255, 2**31 - 1, 2**31, 2**63, 10**400, 0.0, -0.0, 0.5, 1e308, 5e-324, float("nan"), float("inf"), True, False, None)
TEXTS = (
    "",
    " ",
    "0",
    "²",
    "\u0663",
    "é",
    "\ud800",
    "\0",
    "../x",
    "/etc/passwd",
    "a/b",
    "file:///etc",
    "a\nb",
    "%s{0}",
    "x" * 20_000,
    "[" * 200,
)
SHAPES: tuple[Any, ...] = ([], {}, [[]], [None], {"": None}, {"__tensor__": []}, [0] * 300)
DEEP = 12_000  # brackets: more than any stack


@st.composite
def spoiled_bytes(draw: Draw, valid: bytes) -> bytes:
    """One to four edits of the bytes; the ends, where headers and footers are, get half of them."""
    data = bytearray(valid)
    for _ in range(draw(st.integers(1, 4))):
        at, size = draw(_place(len(data))), draw(st.sampled_from((1, 2, 4, 8, 64)))
        edit = draw(st.sampled_from(("flip", "set", "cut", "drop", "insert", "repeat")))
        if edit == "flip" and at < len(data):
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif edit == "set":
            data[at : at + size] = draw(st.sampled_from((b"\xff", b"\0", b"\x7f", b"\x80"))) * size
        elif edit == "cut":
            del data[at:]
        elif edit == "drop":
            del data[at : at + size]
        elif edit == "insert":
            data[at:at] = draw(st.binary(min_size=1, max_size=16))
        elif edit == "repeat":
            data[at:at] = data[at : at + size] * 3
    return bytes(data)


def _place(length: int) -> st.SearchStrategy[int]:
    last = max(length - 1, 0)
    return st.one_of(st.integers(0, last), st.integers(0, min(64, last)), st.integers(max(last - 64, 0), last))


def values() -> st.SearchStrategy[Any]:
    """What JSON can hold and no field expects."""
    leaves = st.one_of(st.sampled_from(NUMBERS), st.sampled_from(TEXTS), st.integers(), st.floats(), st.text(max_size=20))
    nested = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3))
    return st.one_of(leaves, st.sampled_from(SHAPES).map(copy.deepcopy), nested)


@st.composite
def spoiled_plain(draw: Draw, valid: Any) -> Any:
    """One to three changes somewhere in JSON-like data: another value, a key gone, new or renamed, a branch moved elsewhere."""
    data = copy.deepcopy(valid)
    for _ in range(draw(st.integers(1, 3))):
        spots = list(_spots(data))
        if not spots:
            return draw(values())
        holder, key = draw(st.sampled_from(spots))
        edit = draw(st.sampled_from(("value", "value", "value", "gone", "new", "moved")))
        if edit == "value":
            holder[key] = draw(values())
        elif edit == "gone":
            del holder[key]
        elif edit == "new" and isinstance(holder, dict):
            holder[draw(st.one_of(st.text(max_size=8), st.just(f"{key}s")))] = draw(values())
        else:
            other, there = draw(st.sampled_from(spots))
            if isinstance(other, list) and there >= len(other):
                continue
            holder[key] = copy.deepcopy(other.get(there) if isinstance(other, dict) else other[there])
    return data


def _spots(data: Any) -> Any:
    """(container, key) of everything in the tree."""
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in list(items):
        yield data, key
        yield from _spots(value)


def spoiled_json(valid: Any) -> st.SearchStrategy[bytes]:
    """A JSON file that is spoiled in what it says, in its bytes, or by nesting without end."""
    said = spoiled_plain(valid).map(lambda data: json.dumps(data).encode())
    deep = st.sampled_from((b"[" * DEEP, b'{"a":' * DEEP, b"[" * DEEP + b"]" * DEEP))
    return st.one_of(said, said, said, spoiled_bytes(json.dumps(valid).encode()), deep)
