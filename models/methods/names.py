"""What `fanout.methods` may name: criteria at initialization, learned scorers, methods of `models/methods`; each has one spelling.

The registries import the specs, and the specs ask here, so registries are imported when they are needed.
"""

from typing import Any

from autosparse.models.errors import SpecError, unknown_name

SYNONYMS = {"autos": "scorer"}  # the published name of the learned scorer
LEVEL = r"^[a-z][a-z0-9_]*\(.*\)$"  # a name with settings


def known() -> tuple[str, ...]:
    """Every name that may stand there without settings."""
    from autosparse.models.criteria.registry import CRITERIA
    from autosparse.models.methods.registry import METHODS
    from autosparse.models.specs.run_specs import LEARNED

    return (*CRITERIA, *LEARNED, *METHODS, *SYNONYMS)


def is_level(text: str) -> bool:
    """Whether the text is a name with settings in brackets; `spelled` says whether they are allowed."""
    return "(" in text


def spelled(field: str, text: str) -> tuple[str, ...]:
    """What `text` stands for, in the one spelling that keys, tables and fingerprints know: the levels of a method, else a name.

    Raises SpecError, which names `field` and what in it is wrong.
    """
    from autosparse.models.methods.registry import METHODS, level_name, parse

    name = text.partition("(")[0]
    if name not in METHODS:
        if text not in known():
            raise unknown_name(field, text, known())
        return (SYNONYMS.get(text, text),)
    try:
        name, levels = parse(text)
    except SpecError as error:
        message = str(error)
        raise SpecError(field + (message.removeprefix("method") if message.startswith("method:") else f".{message}")) from None
    return tuple(name if METHODS[name].levels == (level,) == (METHODS[name].settings(),) else level_name(name, level) for level in levels)


def spell(spec: Any) -> None:
    """Put the one spelling into the field `methods` of a spec that is being made; what is no tuple of names is left to its check."""
    if isinstance(spec.methods, tuple) and all(isinstance(text, str) for text in spec.methods):
        names = [name for index, text in enumerate(spec.methods) for name in spelled(f"methods[{index}]", text)]
        object.__setattr__(spec, "methods", tuple(names))


def trains(name: str) -> bool:
    """Whether a method changes the training, or the network after it, and is no mask at step 0."""
    from autosparse.models.methods.registry import METHODS

    return family(name) in METHODS


def family(name: str) -> str:
    """The method that a level belongs to: `grda` for `grda(c=0.02,mu=0.8)`."""
    return name.partition("(")[0]
