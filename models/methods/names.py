"""What `fanout.methods` may name: criteria at initialization, learned scorers, methods of `models/methods`; each has one spelling.

A criterion or scorer takes a grain in brackets, `snip(grain=channels)`; `narrow` is the dense baseline (models/specs/grain.py).

A criterion or method of one's own is named `package.module:object`. Its spelling says which of the two it is: a method always has its
settings in brackets, `package.module:object()`, a criterion never.

The registries import the specs, and the specs ask here, so registries are imported when they are needed.
"""

import re
from typing import Any

from autosparse.models.errors import SpecError, not_allowed, unknown_name
from autosparse.models.imported import NAME, import_object, is_outside
from autosparse.models.specs.grain import GRAINED, NARROW, RATES, grain_of, names_grain, spelled_grain

SYNONYMS = {"autos": "scorer"}  # the published name of the learned scorer
LEVEL = rf"^([a-z][a-z0-9_]*\(.*\)|{NAME}(\(.*\))?)$"  # a name with settings, or from outside
WRITTEN = re.compile(r"[^()]+(\([A-Za-z0-9_.,=-]*\))?")  # leaves the signs that separate the parts of an arm's name


def known() -> tuple[str, ...]:
    """Every name that may stand there without settings."""
    from autosparse.models.criteria.registry import CRITERIA
    from autosparse.models.methods.registry import METHODS
    from autosparse.models.specs.run_specs import LEARNED

    return (*CRITERIA, *LEARNED, NARROW, *METHODS, *SYNONYMS)


def is_open(text: str) -> bool:
    """Whether the text is a name with settings in brackets, or from outside; `spelled` says whether it is allowed."""
    return "(" in text or is_outside(text)


def spelled(field: str, text: str) -> tuple[str, ...]:
    """What `text` stands for, in the one spelling that keys, tables and fingerprints know: the levels of a method, else a name.

    What cannot be imported is left as it is: the checks before a run refuse it, and a finished run is shown without it.

    Raises SpecError, which names `field` and what in it is wrong.
    """
    from autosparse.models.methods.registry import METHODS, level_name, parse

    name = family(text)
    if names_grain(text):
        return (_grained(field, text, name),)
    if name not in METHODS and not is_outside(name):
        if text not in known():
            raise unknown_name(field, text, known())
        return (SYNONYMS.get(text, text),)
    if name not in METHODS and _stays(text):
        return (text,)
    try:
        name, levels = parse(text)
    except SpecError as error:
        message = str(error)
        raise SpecError(field + (message.removeprefix("method") if message.startswith("method:") else f".{message}")) from None
    usual = name in METHODS and METHODS[name].levels == levels == (METHODS[name].settings(),)
    found = (name,) if usual else tuple(level_name(name, level) for level in levels)
    for one in found:
        if not WRITTEN.fullmatch(one):
            raise not_allowed(field, one, "settings that are numbers and words")
    return found


def _grained(field: str, text: str, name: str) -> str:
    from autosparse.models.methods.registry import METHODS

    if name in METHODS or (name != NARROW and not is_outside(name) and name not in known()):
        raise unknown_name(field, name, [one for one in known() if one not in METHODS])
    try:
        found = spelled_grain(SYNONYMS.get(name, name) + text.removeprefix(name))
    except SpecError as error:
        raise SpecError(f"{field}.{error}") from None
    grain = grain_of(found)
    if grain and grain.widths == RATES and not is_learned(found):
        raise not_allowed(
            f"{field}.{name}.widths", RATES, f"others for {name}: only a learned scorer says how many rounds a weight survives"
        )
    return found


def _stays(text: str) -> bool:
    """Whether a name from outside has one spelling already: a criterion's, or what cannot be imported here."""
    from autosparse.models.methods.contract import Method

    try:
        found = import_object("method", family(text), "")
    except SpecError:
        return True
    return text == family(text) and not isinstance(found, Method)


def spell(spec: Any) -> None:
    """Put the one spelling into the field `methods` of a spec that is being made; what is no tuple of names is left to its check."""
    if isinstance(spec.methods, tuple) and all(isinstance(text, str) for text in spec.methods):
        names = [name for index, text in enumerate(spec.methods) for name in spelled(f"methods[{index}]", text)]
        object.__setattr__(spec, "methods", tuple(names))


def trains(name: str) -> bool:
    """Whether a method, as `spelled`, changes the training, or the network after it, and is no mask at step 0."""
    from autosparse.models.methods.registry import METHODS

    return name in METHODS or ("(" in name and GRAINED not in name and family(name) != NARROW)


def is_learned(name: str) -> bool:
    """Whether a method, as `spelled`, asks a learned scorer, at whatever grain."""
    from autosparse.models.specs.run_specs import LEARNED

    return family(name) in LEARNED


def looks_ahead(name: str) -> bool:
    """Whether a method, as `spelled`, trains a probe first, at whatever grain."""
    from autosparse.models.specs.run_specs import LOOKING_AHEAD

    return family(name) in LOOKING_AHEAD


def is_criterion(name: str) -> bool:
    """Whether a method, as `spelled`, is a formula at initialization, at whatever grain: no end of the scale, scorer or narrow network."""
    from autosparse.models.criteria.registry import CRITERIA

    return not trains(name) and (family(name) in CRITERIA or is_outside(family(name)))


def family(name: str) -> str:
    """The method that a level belongs to: `grda` for `grda(c=0.02,mu=0.8)`."""
    return name.partition("(")[0]
