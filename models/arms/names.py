"""Arms by name, as people write them: `[TARGET/]METHOD[+CONTROL][@DENSITY][#SEED]`, e.g. `dense`, `scorer@0.02`, `grda(c=0.02,mu=0.8)#10`.

What is left out is found where there is one choice only: the density, and the target of a pair (all targets that have both arms).
"""

import re
from collections.abc import Iterable

from autosparse.models.arms.arm import Arm
from autosparse.models.arms.plan import planned
from autosparse.models.errors import SpecError, not_allowed, unknown_name
from autosparse.models.imported import NAME
from autosparse.models.methods.names import spelled
from autosparse.models.specs.experiment import ExperimentSpec
from autosparse.models.specs.run_specs import DENSE, TICKET

_TEXT = re.compile(
    rf"(?:(?P<target>[a-z0-9-]+)/)?(?P<method>(?:[a-z][a-z0-9_]*|{NAME})(?:\([^)]*\))?)(?:\+(?P<control>[a-z_]+))?"
    r"(?:@(?P<density>(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e-?[0-9]+)?))?(?:#(?P<seed>[0-9]+))?"
)
SHAPE = "[TARGET/]METHOD[+CONTROL][@DENSITY][#SEED]"


def find_pairs(
    spec: ExperimentSpec, first: str, second: str, *, seed: int | None = None, fields: tuple[str, str] = ("first", "second")
) -> list[tuple[Arm, Arm]]:
    """The two arms on every target that has both; `seed` is that of a name without one.

    Raises SpecError, which names the field, for a name that is no arm of the spec or several, for two arms of different targets
    and for one arm twice.
    """
    ones, others = _matching(spec, first, seed, fields[0]), _matching(spec, second, seed, fields[1])
    pairs = []
    for target in dict.fromkeys(arm.target for arm in ones):
        both = [[arm for arm in arms if arm.target == target] for arms in (ones, others)]
        if both[1]:
            pairs.append((_single(both[0], first, fields[0]), _single(both[1], second, fields[1])))
    if not pairs:
        raise SpecError(
            f"{fields[1]}: {second!r} on {_listed(arm.target for arm in others)} and {first!r} on {_listed(arm.target for arm in ones)} "
            "are two different networks; allowed: two arms of one target"
        )
    if any(one == other for one, other in pairs):
        raise not_allowed(fields[1], second, "another arm than the first")
    return pairs


def find_arm(spec: ExperimentSpec, text: str, field: str = "arm") -> Arm:
    """The one arm of that name. Raises SpecError, which names the field, for a name that is no arm of the spec or several."""
    found = _matching(spec, text, None, field)
    if len({arm.target for arm in found}) > 1:
        raise not_allowed(field, text, f"one of {_listed(f'{arm.target}/{arm.short}' for arm in found)}")
    return _single(found, text, field)


def spec_pairs(spec: ExperimentSpec) -> list[tuple[Arm, Arm]]:
    """What `valley.pairs` of the spec stands for. Raises SpecError."""
    found: list[tuple[Arm, Arm]] = []
    for index, pair in enumerate(spec.valley.pairs):
        field = f"valley.pairs.{index}"
        if len(pair) != 2:
            raise not_allowed(field, list(pair), "two arms")
        found += find_pairs(spec, *pair, seed=spec.valley.seed, fields=(f"{field}.0", f"{field}.1"))
    return list(dict.fromkeys(found))


def _matching(spec: ExperimentSpec, text: str, seed: int | None, field: str) -> list[Arm]:
    read = _TEXT.fullmatch(text)
    if not read:
        raise not_allowed(field, text, SHAPE)
    target, name, control, density, own = read.group("target", "method", "control", "density", "seed")
    methods = (name,) if name in (DENSE, TICKET) else _spelled(spec, field, text, name)
    arms = [arm for arm in planned(spec) if arm.method in methods and arm.control == control and target in (None, arm.target)]
    if density:
        arms = [arm for arm in arms if f"{arm.density or 0:g}" == f"{float(density):g}"]
    if not arms:
        raise _no_arm(spec, field, text)
    wanted = int(own) if own else seed
    if wanted is None:
        wanted = (spec.irp.seeds if name == TICKET else spec.fanout.seeds)[0]
    seeds = sorted({arm.seed for arm in arms})
    if wanted not in seeds:
        raise not_allowed(field, f"{text} of seed {wanted}", f"seeds {_listed(map(str, seeds))}")
    return [arm for arm in arms if arm.seed == wanted]


def _spelled(spec: ExperimentSpec, field: str, text: str, name: str) -> tuple[str, ...]:
    try:
        return spelled(field, name)
    except SpecError:
        if "(" in name:
            raise
        raise _no_arm(spec, field, text) from None


def _no_arm(spec: ExperimentSpec, field: str, text: str) -> SpecError:
    arms = planned(spec)
    full = "/" in text
    return unknown_name(field, text, dict.fromkeys(f"{arm.target}/{arm.short}" if full else arm.short for arm in arms))


def _single(arms: list[Arm], text: str, field: str) -> Arm:
    if len(arms) > 1:
        raise not_allowed(field, text, f"one of {_listed(arm.short for arm in arms)}")
    return arms[0]


def _listed(texts: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(texts))
