"""Numbers of a plan as people say them."""

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def spoken(seconds: float) -> str:
    """`45 s`, `12 min`, `3.5 h`, `2.1 days`."""
    for unit, name, least in ((UNITS["d"], "days", 2), (UNITS["h"], "h", 2), (UNITS["m"], "min", 2)):
        if seconds >= least * unit:
            return f"{seconds / unit:.1f}".removesuffix(".0") + f" {name}"
    return f"{seconds:.0f} s"


def counted(number: float) -> str:
    """`512`, `36.8 k`, `1.2 M`: three figures."""
    for size, name in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g} {name}"
    return f"{number:g}"


def sized(count: int) -> str:
    """`0 B`, `1.39 MB`."""
    number, _, unit = counted(count).partition(" ")
    return f"{number} {unit}B"
