"""Bytes as people read and type them."""

import re

from autosparse.models.errors import not_allowed
from autosparse.tasks.settings import BYTES

UNITS = ("bytes", "kB", "MB", "GB", "TB")


def in_words(size: float) -> str:
    """`1234567` as `1.2 MB`; a unit is 1000 of the one before."""
    unit = 0
    while size >= 1000 and unit < len(UNITS) - 1:
        size, unit = size / 1000, unit + 1
    return f"{size:.1f} {UNITS[unit]}" if unit else f"{size:.0f} {UNITS[0]}"


def parse_size(option: str, text: str) -> int:
    """`50GiB` or `500 MB` as bytes. Raises SpecError, which names `option`."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Z]*)", text.strip().upper())
    if not found or found[2] not in BYTES:
        raise not_allowed(option, text, "bytes, also with a unit: 50GiB, 500MB")
    return int(float(found[1]) * BYTES[found[2]])
