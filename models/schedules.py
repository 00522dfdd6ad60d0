"""Density per round: geometric, so that every cut removes the same share of what is left."""


def density_before(round_index: int, rounds: int, final_density: float) -> float:
    """Density of the network trained in round `round_index` (0-based) of `rounds`: `final_density ** (round_index / rounds)`."""
    return final_density ** (round_index / rounds)


def density_after(round_index: int, rounds: int, final_density: float) -> float:
    """Density to which round `round_index` cuts, equal to `density_before` of the next; the last is `final_density` exactly."""
    return density_before(round_index + 1, rounds, final_density)
