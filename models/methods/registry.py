"""Name -> method: the only door to them. A new method is one file, one line here, one test file, or a module of its own.

A method of the fan-out is written `grda` (its usual levels) or `grda(c=0.005,mu=0.65)` (one level; what is not named has its
default).
"""

from autosparse.models.errors import unknown_name
from autosparse.models.imported import import_object, is_outside, refused
from autosparse.models.methods import constrained_l0, dep_l0, dst_ee, ga_threshold, gdp
from autosparse.models.methods.contract import Method, Settings
from autosparse.models.methods.forward_gradient import FWDGRAD
from autosparse.models.methods.fw_rnn import FW_RNN
from autosparse.models.methods.grda import GRDA
from autosparse.models.methods.haste import HASTE
from autosparse.models.methods.sdp import SDP
from autosparse.models.specs.levels import level_name, settings_in, split

__all__ = ["METHODS", "find_method", "level_name", "parse"]

METHODS: dict[str, Method] = {
    "grda": GRDA,
    "sdp": SDP,
    "constrained_l0": constrained_l0.METHOD,
    "dep_l0": dep_l0.METHOD,
    "gdp": gdp.METHOD,
    "ga_threshold": ga_threshold.GA_THRESHOLD,
    "ga_topk": ga_threshold.GA_TOPK,
    "str": ga_threshold.STR,
    "dst_ee": dst_ee.DST_EE,
    "rigl": dst_ee.RIGL,
    "set": dst_ee.SET,
    "haste": HASTE,
    "fwdgrad": FWDGRAD,
    "fw_rnn": FW_RNN,
}

ENTRY = "package.module:object, a Method of autosparse.models.methods.contract"


def find_method(name: str, field: str = "method") -> Method:
    """The method of a registered name or of `package.module:object`. Raises SpecError, which names `field`."""
    if name in METHODS:
        return METHODS[name]
    if not is_outside(name):
        raise unknown_name(field, name, METHODS)
    found = import_object(field, name, ENTRY)
    if not isinstance(found, Method):
        raise refused(field, name, ENTRY, f"it is a {type(found).__name__}, and no criterion has settings")
    return found


def parse(text: str) -> tuple[str, tuple[Settings, ...]]:
    """`name` or `name(field=value,...)` -> the name and its settings, one per level. Raises SpecError: names, fields, values."""
    name, inside = split(text)
    method = find_method(name)
    return name, method.levels if inside is None else (settings_in(name, inside, method.settings),)
