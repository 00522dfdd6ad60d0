"""What a method at initialization removes: single weights, kernels, channels, or channels and weights inside what is left.

`synflow(grain=channels)` is the criterion SynFlow at another grain; `narrow` is the baseline of them all, a dense network that is
uniformly narrower. Both are spelled as methods with settings, and a share of `cost` stands where the density does.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Literal

from autosparse.models.specs.fields import Spec
from autosparse.models.specs.levels import level_name, settings_in, split
from autosparse.models.specs.rules import Range
from autosparse.models.specs.run_specs import DENSE, TICKET

Cost = Literal["multiply_adds", "weights", "parameters"]
WEIGHTS: Cost = "weights"
GRAINED = "(grain="  # how a spelled name goes on; no method that trains otherwise has a setting of this name
NARROW = "narrow"
RATES = "rates"


@dataclass(frozen=True, kw_only=True, slots=True)
class Grain(Spec):
    """`cost` is what the share of an arm is a share of, in the network without the channels that left: multiply-adds per image, prunable
    weights, or all parameters. Kernels and mixed masks are counted in weights, whatever it says.

    `widths`, of channels: `densities` = a layer is as wide as the density in the method's own mask of weights has it, its channels by
    their mean score; `uniform` = all layers by one share, the method chooses the channels; `scores` = all channels of the network in
    one ranking; `rates`, of a learned scorer whose label is survival = each layer narrows at the rate that its weights' mean share of
    survived rounds has. `inside`, of mixed masks: the share of weights that is kept inside the channels that stay.
    """

    grain: Literal["kernels", "channels", "mixed"]
    cost: Cost = "multiply_adds"
    widths: Literal["densities", "uniform", "scores", "rates"] = "densities"
    inside: Annotated[float, Range(above=0, most=1)] = 0.25


@dataclass(frozen=True, kw_only=True, slots=True)
class Narrow(Spec):
    """The network made uniformly narrower until it costs a share of what it did."""

    cost: Cost = "multiply_adds"


@dataclass(frozen=True, kw_only=True, slots=True)
class Narrowed(Narrow):
    """One `narrow` arm: the share of the cost that is left."""

    share: Annotated[float, Range(above=0, most=1)]


def names_grain(text: str) -> bool:
    """Whether a text, spelled or not, gives a method a grain, or is `narrow`."""
    name, _, inside = text.partition("(")
    return name == NARROW or any(part.strip().startswith("grain=") for part in inside.split(","))


def grain_of(method: str) -> Grain | None:
    """The grain in the name of a method, None for one of single weights. Raises SpecError: fields, values."""
    name, _, _ = method.partition("(")
    if name == NARROW or not names_grain(method):
        return None
    name, inside = split(method)
    return settings_in(name, inside or "", Grain)


def narrow_of(method: str) -> Narrow | None:
    """The settings of a `narrow` arm, None for other methods. Raises SpecError: fields, values."""
    name, _, _ = method.partition("(")
    return settings_in(name, split(method)[1] or "", Narrow) if name == NARROW else None


def spelled_grain(method: str) -> str:
    """The one spelling of a method with a grain, or of `narrow`. Raises SpecError: fields, values."""
    name, _ = split(method)
    found = grain_of(method) or narrow_of(method)
    assert found is not None, "neither has a grain nor is narrow"
    return name if found == Narrow() else level_name(name, found)


def cost_of(method: str) -> Cost:
    """What the share of an arm of this method is a share of; for methods of single weights their number."""
    grain = grain_of(method)
    if grain:
        return grain.cost if grain.grain == "channels" else WEIGHTS
    narrow = narrow_of(method)
    return narrow.cost if narrow else WEIGHTS


def kind_of(method: str) -> tuple[str, Cost]:
    """What a method removes and what its number is a share of. Methods of one kind are rivals at one number."""
    grain = grain_of(method)
    return grain.grain if grain else "weights", cost_of(method)


def number_of(methods: Iterable[str]) -> str:
    """What the number behind `@` is called: `density` of methods that are cut at one, `share` of those at a share of another cost.

    `density or share` where there are both. Dense networks and tickets go by the others.
    """
    costs = {cost_of(method) for method in methods if method not in (DENSE, TICKET)}
    if not costs - {WEIGHTS}:
        return "density"
    return "density or share" if WEIGHTS in costs else "share"
