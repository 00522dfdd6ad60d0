"""The threshold of an exact cut where the scores are too many for one more copy of them: by counting, a few bits at a time."""

from collections.abc import Callable, Iterator

import numpy as np
from torch import Tensor

BITS = 16  # of a pass: 65,536 counters
CHUNK = 1 << 24  # scores that are looked at together

Parts = Callable[[], Iterator[Tensor]]  # the scores, flat, in pieces; asked for once per pass


def nth_highest(parts: Parts, count: int) -> float:
    """The `count`-th highest of all numbers of `parts` (float32 or float64, no NaN), exactly; memory is that of one chunk.

    Floating-point numbers are ordered as their bits are, once the sign is taken care of, so the number is found from its highest
    bits down: each pass counts how many numbers share the bits found so far and which bits they have next.
    """
    width = 8 * next(parts()).element_size()
    found, known = 0, 0
    while known < width:
        shift = width - known - BITS
        counts = np.zeros(1 << BITS, dtype=np.int64)
        for part in parts():
            for keys in _keys(part, width):
                if known:
                    keys = keys[keys >> np.uint64(shift + BITS) == np.uint64(found)]
                counts += np.bincount((keys >> np.uint64(shift) & np.uint64((1 << BITS) - 1)).astype(np.int64), minlength=1 << BITS)
        at_least = counts[::-1].cumsum()[::-1]
        digit = int(np.flatnonzero(at_least >= count).max())
        count -= int(at_least[digit] - counts[digit])
        found, known = found << BITS | digit, known + BITS
    return _number(found, width)


def _keys(part: Tensor, width: int) -> Iterator[np.ndarray]:
    """Unsigned integers in the order of the numbers, chunk by chunk; -0.0 counts as 0.0."""
    kind, sign = (np.uint32, 0x80000000) if width == 32 else (np.uint64, 0x8000000000000000)
    for chunk in part.detach().cpu().split(CHUNK):
        bits = (chunk + 0.0).numpy().view(kind)
        keys = np.where(bits & kind(sign), ~bits, bits | kind(sign))
        yield keys.astype(np.uint64)


def _number(key: int, width: int) -> float:
    kind, floating, sign = (np.uint32, np.float32, 1 << 31) if width == 32 else (np.uint64, np.float64, 1 << 63)
    bits = key & ~sign if key & sign else ~key & ((1 << width) - 1)
    return float(np.array([bits], dtype=kind).view(floating)[0])
