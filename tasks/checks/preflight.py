"""Checks of a whole spec before anything starts; each error is one line: field, value, what is allowed."""

import functools
import platform
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import nn

from autosparse.models.arms.names import spec_pairs
from autosparse.models.errors import AutosparseError, ConflictError, DataError, SpecError, not_allowed
from autosparse.models.features import FEATURES_VERSION
from autosparse.models.specs.experiment import ExperimentSpec, plain_spec
from autosparse.models.specs.fanout import TargetSpec
from autosparse.models.specs.fields import fingerprint
from autosparse.models.specs.run_specs import DataSpec, NetworkSpec
from autosparse.storage.addresses import is_local
from autosparse.storage.image_datasets import PREFIX
from autosparse.storage.image_datasets import check_name as check_data_name
from autosparse.storage.paths import LONGEST_LABEL, RunPaths, check_name
from autosparse.storage.store import Store, dump_json
from autosparse.tasks.checks.cleared import check_not_cleared
from autosparse.tasks.checks.method_checks import check_methods
from autosparse.tasks.checks.networks import Seen, build, seen_of
from autosparse.tasks.checks.own_data import check_own_data
from autosparse.tasks.checks.training import check_trainings
from autosparse.tasks.worker.dry_run import dry_run, placed
from autosparse.tasks.worker.problem import is_own, open_problem


@functools.lru_cache(maxsize=1)  # `autosparse run` asks before any service starts, and the flow asks again in the same process
def check_spec(spec: ExperimentSpec) -> None:
    """Raise SpecError for what no single field can know: unknown data sets and networks, batches that cannot be shared out, methods
    on networks that they do not support, pairs of arms that there will not be."""
    for field, data in data_specs(spec):
        if is_own(data):
            check_own_data(spec, field, data)
        else:
            check_data_name(f"{field}.name", data.name)
        if data.path and is_local(data.path) and not Path(data.path).is_absolute():
            raise not_allowed(f"{field}.path", data.path, "an absolute path or s3://, because workers have another current directory")
    check_labels(spec)
    seen = {data: seen_of(data) for _, data in data_specs(spec)}
    built: dict[tuple[NetworkSpec, DataSpec], nn.Module] = {}
    for field, network, data in networks_of(spec):
        if (key := (network, data)) not in built:
            built[key] = _built(field, network, seen[data])
    check_trainings(spec, {data: one.task for data, one in seen.items()})
    check_methods(spec, {target: (built[target.network, data], seen[data]) for target, data in targets_of(spec)})
    spec_pairs(spec)


def check_labels(spec: ExperimentSpec) -> None:
    """Raise SpecError for a network whose name leaves nothing, or too much, for the keys of its results."""
    for field, network, _ in networks_of(spec):
        check_name(f"{field}.name", network.label, LONGEST_LABEL)


def run_name(spec: ExperimentSpec) -> str:
    """The default name: the same spec finds the same run again."""
    return f"run-{fingerprint(spec)}"


def check_same_spec(store: Store, paths: RunPaths, spec: ExperimentSpec) -> None:
    """Raise ConflictError when a run of another spec has that name, or one that was cleared."""
    check_not_cleared(store, paths)
    if store.exists(paths.spec):
        there = store.read_json(paths.spec)["fingerprint"]
        if there != fingerprint(spec):
            raise ConflictError(
                f"name: {paths.name!r} holds a run of another spec ({there}, now {fingerprint(spec)}); allowed: another --name"
            )


def versions() -> dict[str, str]:
    """What results depend on beside the spec: other versions round otherwise, or measure other features."""
    found = {"python": platform.python_version(), "torch": version("torch"), "ray": version("ray")}
    return {**{name: ".".join(text.split(".")[:2]) for name, text in found.items()}, "features": str(FEATURES_VERSION)}


def check_same_versions(store: Store, paths: RunPaths, *, force: bool = False) -> dict[str, Any]:
    """What the record of a run says about versions from now on: those of now, and all earlier ones that `force` mixed them with.

    Raises ConflictError when the run was begun with others, unless `force`.
    """
    now = versions()
    record = store.read_json(paths.spec) if store.exists(paths.spec) else {}
    before, mixed = record.get("versions", now), record.get("earlier_versions", [])
    if before == now:
        return {"versions": now} | ({"earlier_versions": mixed} if mixed else {})
    if not force:
        differ = [name for name in now if before.get(name) != now[name]]
        there, here = ({name: of.get(name) for name in differ} for of in (before, now))
        raise ConflictError(
            f"name: {paths.name!r} was begun with {_named(there)}, now {_named(here)}; allowed: those versions, another --name, or "
            "--force, which mixes them in one result"
        )
    return {"versions": now, "earlier_versions": [*mixed, before]}


def _named(found: dict[str, Any]) -> str:
    return ", ".join(f"{name} {text}" for name, text in found.items())


def claim_name(store: Store, paths: RunPaths, spec: ExperimentSpec, versions: Mapping[str, Any]) -> None:
    """Write the record of the run under its name, which decides between two runs that start at the same moment.

    `versions` is what `check_same_versions` and `check_same_code` returned. Raises ConflictError, with both fingerprints, for the one that
    comes second with another spec.
    """
    record = {"spec": plain_spec(spec), "fingerprint": fingerprint(spec), "name": paths.name, **versions}
    try:
        store.create(paths.spec, dump_json(record))
    except ConflictError:
        check_same_spec(store, paths, spec)
        store.write_json(paths.spec, record)


def data_specs(spec: ExperimentSpec) -> Iterator[tuple[str, DataSpec]]:
    """Every data set of a spec with the path of its field."""
    yield "data", spec.data
    for index, target in enumerate(spec.fanout.targets):
        if target.data:
            yield f"fanout.targets.{index}.data", spec.data_of(target)


def check_local_data(spec: ExperimentSpec, cache: Path | None) -> None:
    """Open every data set of the spec here, which decodes images into the cache, and try each network on two examples of it.

    Without a cache nothing is written, and what would have to be downloaded is left out. Raises DataError or SpecError.
    """
    fields = dict(reversed([(data, field) for field, data in data_specs(spec)]))
    for data, field in fields.items():
        if cache is None and (data.download or data.name.startswith(PREFIX)):
            continue
        try:
            problem = open_problem(data, cache, partial(_say, field))
        except AutosparseError as error:
            said = str(error)
            kind = SpecError if isinstance(error, SpecError) else type(error)
            raise kind(f"{field}.{said.removeprefix('data.')}" if said.startswith("data.") else said, error.details) from None
        for split, count in problem.sizes.items():
            if not count:
                raise DataError(f"{field}: {data.title} has no {split} examples")
        for place, network, other in networks_of(spec):
            if other == data:
                dry_run(problem, network, place)


def _say(field: str, message: str) -> None:
    sys.stderr.write(f"{field}: {message}\n")  # of work that may take minutes, as it goes on


def targets_of(spec: ExperimentSpec) -> list[tuple[TargetSpec, DataSpec]]:
    """Every target with its data."""
    return [(target, spec.data_of(target)) for target in spec.fanout.targets]


def networks_of(spec: ExperimentSpec) -> Iterator[tuple[str, NetworkSpec, DataSpec]]:
    """Every network with the path of its field and the data it sees."""
    for index, network in enumerate(spec.irp.networks):
        yield f"irp.networks.{index}", network, spec.data
    for index, target in enumerate(spec.fanout.targets):
        yield f"fanout.targets.{index}.network", target.network, spec.data_of(target)


def _built(field: str, network: NetworkSpec, seen: Seen) -> nn.Module:
    try:
        return build(network, seen)
    except SpecError as error:
        raise placed(field, error) from None
