"""Name -> criterion: the only door to them. A new criterion is one function and one line here."""

from autosparse.models.criteria.contract import Allocate, Criterion, ScoreFn
from autosparse.models.criteria.gradient_flow import grasp
from autosparse.models.criteria.growth import growth
from autosparse.models.criteria.magnitude import magnitude, magnitude_iterative, random
from autosparse.models.criteria.random_walks import phew
from autosparse.models.criteria.sensitivity import force, snip, snip_iterative
from autosparse.models.criteria.smallest_paths import growth_paths, smallest_paths
from autosparse.models.criteria.synaptic_flow import synflow
from autosparse.models.criteria.tangent_kernel import ntk_sap
from autosparse.models.masks.allocation import erk_topk, uniform_plus_topk, uniform_topk

__all__ = ["CRITERIA", "Allocate", "Criterion", "ScoreFn"]

CRITERIA: dict[str, Criterion] = {
    "random": Criterion(random),
    "erk": Criterion(random, erk_topk),
    "uniform": Criterion(random, uniform_topk),
    "uniform_plus": Criterion(random, uniform_plus_topk),
    "magnitude": Criterion(magnitude),
    "magnitude_iterative": Criterion(magnitude_iterative),
    "snip": Criterion(snip),
    "snip_iterative": Criterion(snip_iterative),
    "force": Criterion(force),
    "grasp": Criterion(grasp),
    "synflow": Criterion(synflow),
    "smallest_paths": Criterion(smallest_paths),
    "ntk_sap": Criterion(ntk_sap),
    "phew": Criterion(phew),
    "growth": Criterion(growth),
    "growth_paths": Criterion(growth_paths),
}
