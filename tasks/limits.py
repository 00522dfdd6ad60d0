"""How long and how much, as numbers of the environment that most people leave alone.

AUTOSPARSE_START_SECONDS  how long a local Ray, the embedded Prefect or a service of `up` may take to start on a busy machine
AUTOSPARSE_GROW_SECONDS   how long a cluster that can grow is waited for; 0 = it is taken as it is
AUTOSPARSE_LEASE_SECONDS  after which a run on S3 whose machine is silent may be taken up by another one
AUTOSPARSE_RUNS_AT_ONCE   flow runs that the work pool takes at once; asked by `up` and by the flow worker's start
"""

import math
import os

from autosparse.models.errors import not_allowed

START, GROW, LEASE, RUNS = "AUTOSPARSE_START_SECONDS", "AUTOSPARSE_GROW_SECONDS", "AUTOSPARSE_LEASE_SECONDS", "AUTOSPARSE_RUNS_AT_ONCE"
DEFAULTS = {START: 300.0, GROW: 900.0, LEASE: 180.0, RUNS: 4.0}
LEAST = {START: 1.0, GROW: 0.0, LEASE: 3.0, RUNS: 1.0}


def limit(name: str) -> float:
    """What the environment says, or the default. Raises SpecError."""
    text = os.environ.get(name, "").strip()
    try:
        value = float(text) if text else DEFAULTS[name]
    except ValueError:
        value = math.nan
    whole = name == RUNS
    if not (math.isfinite(value) and value >= LEAST[name]) or (whole and value != int(value)):
        raise not_allowed(name, text, f"a {'whole ' if whole else ''}number, at least {LEAST[name]:g}")
    return value
