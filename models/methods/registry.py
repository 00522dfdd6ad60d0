"""Name -> method: the only door to them. A new method is one file, one line here, one test file, or a module of its own.

A method of the fan-out is written `grda` (its usual levels) or `grda(c=0.005,mu=0.65)` (one level; what is not named has its
default).
"""

import json
import re
from typing import Any

from autosparse.models.errors import SpecError, not_allowed, unknown_name
from autosparse.models.imported import NAME, import_object, is_outside, refused
from autosparse.models.methods import constrained_l0, dep_l0, dst_ee, ga_threshold, gdp
from autosparse.models.methods.contract import Method, Settings
from autosparse.models.methods.forward_gradient import FWDGRAD
from autosparse.models.methods.fw_rnn import FW_RNN
from autosparse.models.methods.grda import GRDA
from autosparse.models.methods.haste import HASTE
from autosparse.models.methods.sdp import SDP
from autosparse.models.specs.fields import from_plain, to_plain

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

_TEXT = re.compile(rf"([a-z][a-z0-9_]*|{NAME})(?:\((.*)\))?")
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
    found = _TEXT.fullmatch(text)
    if not found:
        raise not_allowed("method", text, "name or name(field=value,...)")
    name, inside = found.groups()
    method = find_method(name)
    if inside is None:
        return name, method.levels
    values: dict[str, Any] = {}
    for entry in filter(None, (part.strip() for part in inside.split(","))):
        key, sign, value = entry.partition("=")
        if not sign or key in values:
            raise not_allowed("method", text, "field=value, each field once, with commas between")
        values[key.strip()] = _plain(value.strip())
    try:
        return name, (from_plain(method.settings, values),)
    except SpecError as error:
        raise SpecError(f"{name}.{error}") from None


def level_name(name: str, settings: Settings) -> str:
    """The text that `parse` takes to exactly these settings; only fields that are not at their default are named."""
    default = to_plain(type(settings)())
    changed = {key: value for key, value in to_plain(settings).items() if value != default[key]}
    return f"{name}({','.join(f'{key}={_text(value)}' for key, value in changed.items())})"


def _plain(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        try:
            return float(text)  # .05, which JSON does not know
        except ValueError:
            return text


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value).replace("e+", "e")  # + is the sign of controls
