"""What a method with a density target asks of a network before it is trained."""

from autosparse.models.errors import SpecError, not_allowed
from autosparse.models.masks import mask as masks
from autosparse.models.masks.allocation import keep_count
from autosparse.models.methods.contract import Settings, Setup


def density(setup: Setup) -> float:
    """That of the arm. Raises SpecError where it has none, or one too low for a weight in each prunable layer."""
    if setup.density is None:
        raise not_allowed("density", None, "> 0 and <= 1")
    params = masks.prunable(setup.network, head=setup.head)
    if keep_count(setup.density, sum(param.numel() for param in params.values())) < len(params):
        raise not_allowed("density", setup.density, f"one that keeps a weight in each of the {len(params)} layers")
    return setup.density


def refuses(setup: Setup, settings: Settings) -> str | None:
    """What `density` would raise, for `Method.refuses`."""
    try:
        density(setup)
    except SpecError as error:
        return str(error)
    return None
