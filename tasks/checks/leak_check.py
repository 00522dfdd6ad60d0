"""Whether a scorer was judged, or will be tested, on what it was trained on. Pure functions of its card; the registry asks first.

A scorer's card says what its training rows came from and what each held-out figure was computed on, both written down while it
happened. Three sets of seeds must not meet: those trained on, those held out (by which the champion is chosen), and those of the
arms that test it. Layers held out belong to training seeds by design; what must not meet there is layers of one source.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from autosparse.models.arms.plan import planned
from autosparse.models.errors import LeakError
from autosparse.models.methods.names import is_learned
from autosparse.models.specs.experiment import ExperimentSpec
from autosparse.storage import paths, reports
from autosparse.storage.paths import RunPaths
from autosparse.storage.store import Store

Card = Mapping[str, Any]


def check_leaks(card: Card, test_seeds: Iterable[int]) -> None:
    """Raise LeakError, in one line, where training, evaluation and `test_seeds` of a scorer share a seed, or evaluation a layer.

    A card that does not say what was trained on, or that has figures of held-out seeds without any such seed, is refused too. One
    from before `evaluated_on` answers by the seeds it says were held out.
    """
    trained_on, evaluated_on = card.get("trained_on") or {}, card.get("evaluated_on") or {}
    trained_layers, judged = _places(trained_on.get("layers", ())), _places(evaluated_on.get("seeds", ()))
    trained = set(trained_on.get("seeds", ())) | {seed for _, seed, _ in trained_layers}
    held_out = set(trained_on.get("held_out_seeds", ())) | {seed for _, seed, _ in judged}
    sources = ", ".join(trained_on.get("sources", ()))
    if not trained:
        raise LeakError("scorer.trained_on: its card names no seed; allowed: the seeds that it was trained on")
    if "seeds" in card.get("metrics", {}) and not held_out:
        raise LeakError("scorer.metrics: figures of held-out seeds, but no seed was held out; allowed: figures of seeds that are named")
    _refuse(
        "evaluated_on", held_out & trained, f"seeds of {sources} that the scorer was not trained on; its training set has {sorted(trained)}"
    )
    known = {(source, layer) for source, _, layer in trained_layers}
    seen = sorted({f"{source}/{layer}" for source, _, layer in _places(evaluated_on.get("layers", ())) if (source, layer) in known})
    if seen:
        raise LeakError(f"scorer.evaluated_on: layer {', '.join(seen)} is not allowed; allowed: layers that the scorer was not trained on")
    tests = set(test_seeds)
    _refuse("fanout.seeds", tests & trained, f"test seeds outside the scorer's training set {sorted(trained)}")
    _refuse("fanout.seeds", tests & held_out, f"test seeds by which the scorer was not chosen; held out were {sorted(held_out)}")


def seeds_of_arms(store: Store, run: RunPaths, spec: ExperimentSpec) -> set[int]:
    """Seeds on which arms of the scorer are tested: those that the spec asks for, and those of arms that are there already."""
    steps = [step for step in reports.steps(store, run.fanout) if is_learned(paths.method_of(step).partition("-")[0])]
    return {arm.seed for arm in planned(spec) if is_learned(arm.method)} | {store.read_json(paths.report(step))["seed"] for step in steps}


def _places(names: Iterable[str]) -> set[tuple[str, int, str]]:
    """`SOURCE-SEED/LAYER` -> (source, seed, layer). Raises LeakError for anything else: it could hide what it names."""
    found = set()
    for name in names:
        place, _, layer = str(name).partition("/")
        source, _, seed = place.rpartition("-")
        if not (source and layer and seed.isdecimal()):
            raise LeakError(f"scorer.trained_on: {name!r} is not allowed; allowed: SOURCE-SEED/LAYER")
        found.add((source, int(seed), layer))
    return found


def _refuse(field: str, seeds: set[int], allowed: str) -> None:
    if seeds:
        where = field if "." in field else f"scorer.{field}"
        raise LeakError(f"{where}: seed {', '.join(map(str, sorted(seeds)))} is not allowed; allowed: {allowed}")
