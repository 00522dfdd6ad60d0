"""Name -> criterion: the only door to them. A new criterion is one function and one line here, or a module of its own."""

from typing import Any

from autosparse.models.criteria.contract import Allocate, Criterion, ScoreFn
from autosparse.models.criteria.gradient_flow import grasp
from autosparse.models.criteria.growth import growth
from autosparse.models.criteria.magnitude import magnitude, magnitude_iterative, random
from autosparse.models.criteria.random_walks import phew
from autosparse.models.criteria.sensitivity import force, snip, snip_iterative
from autosparse.models.criteria.smallest_paths import growth_paths, smallest_paths
from autosparse.models.criteria.synaptic_flow import synflow
from autosparse.models.criteria.tangent_kernel import ntk_sap
from autosparse.models.errors import unknown_name
from autosparse.models.imported import check_call, import_object, is_outside
from autosparse.models.masks.allocation import erk_topk, uniform_plus_topk, uniform_topk

__all__ = ["CRITERIA", "Allocate", "Criterion", "ScoreFn", "find_criterion"]

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

FUNCTION = "package.module:object, a function (network, batches, generator, *, head, density) -> scores or a Criterion(score, allocate)"


def find_criterion(name: str, field: str = "criterion") -> Criterion:
    """The criterion of a registered name or of `package.module:object`: a score function, or a Criterion with its own allocation.

    Raises SpecError, which names `field`, for an unknown name and for an object that cannot be called as `contract.py` says.
    """
    if name in CRITERIA:
        return CRITERIA[name]
    if not is_outside(name):
        raise unknown_name(field, name, CRITERIA)
    found: Any = import_object(field, name, FUNCTION)
    criterion = found if isinstance(found, Criterion) else Criterion(found)
    check_call(field, name, criterion.score, FUNCTION, None, [], None, head=True, density=0.1)
    check_call(field, name, criterion.allocate, "an allocation (scores, density, *, floor, alive) -> mask", {}, 0.1, floor=0)
    return criterion
