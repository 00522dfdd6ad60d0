"""The feature data set on Ray: what each prunable weight was at initialization, how many rounds it survived, how it grew."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autosparse.models.features import FEATURES_VERSION, layer_facts
from autosparse.models.gradients import mean_gradients
from autosparse.models.masks.mask import prunable
from autosparse.models.scorers.labels import growth_levels, rounds_survived
from autosparse.models.specs.fields import Spec
from autosparse.models.specs.run_specs import DataSpec, IrpSpec, NetworkSpec, Seed
from autosparse.storage import paths
from autosparse.storage.feature_table import Part, commit_dataset, write_shard
from autosparse.tasks.worker.job import Job, body
from autosparse.tasks.worker.problem import Problem, initial_network, open_problem
from autosparse.tasks.worker.scoring_batches import scoring_batches
from autosparse.tasks.worker.train_network import load_state, read_mask, read_state


@dataclass(frozen=True, kw_only=True, slots=True)
class Source(Spec):
    """A source network and seed; `folder` is where its states and rounds lie in the store."""

    network: NetworkSpec
    seed: Seed
    folder: str


@dataclass(frozen=True, kw_only=True, slots=True)
class FeaturesInputs(Spec):
    """The sources of a data set and what they went through; `fingerprint` is that of the run's spec."""

    irp: IrpSpec
    data: DataSpec
    sources: tuple[Source, ...]
    fingerprint: str


@body(FeaturesInputs)
def extract_features(job: Job, inputs: FeaturesInputs) -> dict[str, Any]:
    """One Parquet part per source, committed as one data set; returns its uri, digest and rows."""
    problem, irp = open_problem(inputs.data, job.cache), inputs.irp
    with tempfile.TemporaryDirectory() as folder:
        parts = []
        for number, source in enumerate(inputs.sources):
            parts.append(_part(job, inputs, problem, source, Path(folder) / f"part-{number:05d}.parquet"))
            job.tell("log", message=f"features of {source.network.name} seed {source.seed}: {parts[-1].rows:,} rows")
        metadata = {
            "features_version": FEATURES_VERSION,
            "rounds": irp.rounds,
            "final_density": irp.final_density,
            "criterion": irp.criterion,
            "data_digest": problem.digest,
            "fingerprint": inputs.fingerprint,
        }
        dataset = commit_dataset(job.store, paths.RunPaths(job.run.name).features, parts, metadata)
    return {"uri": dataset.uri, "digest": dataset.digest, "rows": dataset.rows, "sources": len(parts), **metadata}


def _part(job: Job, inputs: FeaturesInputs, problem: Problem, source: Source, path: Path) -> Part:
    spec, irp, run = source.network, inputs.irp, paths.RunPaths(job.run.name)
    network = initial_network(spec, problem, source.seed)
    load_state(network, read_state(job, paths.initial_state(source.folder)))
    network.to(job.device)
    params = prunable(network, head=spec.prune_head)
    gradients = mean_gradients(network, scoring_batches(job, problem, source.seed), params)
    cuts = (paths.mask(run.round(spec.label, source.seed, index)) for index in range(irp.rounds))
    survived = rounds_survived([read_mask(job, key) for key in cuts])
    trained = read_state(job, paths.weights(run.round(spec.label, source.seed, 0)))
    facts = layer_facts(params, gradients)
    metadata = {
        "source": spec.label,
        "seed": source.seed,
        "rounds": irp.rounds,
        "features_version": FEATURES_VERSION,
        "layers": [fact.to_plain() for fact in facts],
    }
    with write_shard(path, metadata) as writer:
        for number, name in enumerate(params):
            grown = growth_levels(params[name].cpu(), trained[name])
            columns = (params[name].detach(), gradients[name], survived[name], grown)
            writer.add(number, *(column.cpu().contiguous().reshape(-1).numpy() for column in columns))
    return writer.part
