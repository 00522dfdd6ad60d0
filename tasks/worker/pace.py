"""How fast this machine is at what a run is made of: some training steps of each network, a pass of one example, rows of a scorer's fit."""

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from autosparse.models.errors import not_allowed
from autosparse.models.features import feature_matrix_rows, layer_facts
from autosparse.models.masks.mask import prunable
from autosparse.models.scorers.fit import fit_scorer
from autosparse.models.scorers.registry import build_scorer
from autosparse.models.specs.fields import Spec
from autosparse.models.specs.rules import Count
from autosparse.models.specs.run_specs import DataSpec, NetworkSpec, ScorerSpec
from autosparse.models.training.probe import PATIENCE_S, step_seconds
from autosparse.tasks.worker.dry_run import dry_run
from autosparse.tasks.worker.problem import Problem, initial_network, open_problem

BATCHES = 2  # that the probe takes in turn
PASS = 2  # examples of a pass for which their number hardly counts; BatchNorm cannot train on one
ROWS = 16  # batches of a scorer's fit
QUICK_S = 0.1  # after which a quick look begins no further step


@dataclass(frozen=True, kw_only=True, slots=True)
class Probed(Spec):
    """A training to be tried for some steps: `field` of the spec names the network, `threads` and `gpu` are those of its job."""

    field: str
    network: NetworkSpec
    data: DataSpec
    batch_size: Count
    threads: Count = 1
    gpu: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class PaceInputs(Spec):
    """The trainings to try, and the scorer that is to be fitted to the weights of the first network, None for none.

    A `quick` look takes a fraction of a second for small networks, two steps for large ones, and starts no process.
    """

    trainings: tuple[Probed, ...]
    scorer: ScorerSpec | None
    quick: bool = False


def paces(inputs: PaceInputs, cache: Path | None) -> dict[str, Any]:
    """A record for each training, in their order; `row_seconds` of a weight in an epoch of the scorer's fit, None
    without one; `start_seconds` of a process.

    A record has the numbers of `train` and `test` examples, `weights` (all parameters), `step_seconds` of a training step and
    `pass_seconds` of one of PASS examples. Each network is tried on two examples first. Raises SpecError, DataError.
    """
    problems: dict[DataSpec, Problem] = {}
    found, row_s = [], None
    for one in inputs.trainings:
        problem = problems[one.data] = problems.get(one.data) or open_problem(one.data, cache)
        dry_run(problem, one.network, one.field)
        network = initial_network(one.network, problem, seed=0)
        patience = QUICK_S if inputs.quick else PATIENCE_S
        step_s, pass_s = (_step(one, network, problem, size, patience) for size in (one.batch_size, min(PASS, one.batch_size)))
        weights = sum(param.numel() for param in network.parameters())
        found.append({**problem.sizes, "weights": weights, "step_seconds": step_s, "pass_seconds": pass_s})
        if inputs.scorer and row_s is None:
            row_s = row_seconds(network, inputs.scorer, head=one.network.prune_head)
    return {"trainings": found, "row_seconds": row_s, "start_seconds": None if inputs.quick else start_seconds()}


def start_seconds() -> float:
    """Until a process of its own has imported torch, which is most of what the start of a job is."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import torch"], check=False, capture_output=True)
    return time.perf_counter() - start


def _step(one: Probed, network: nn.Module, problem: Problem, size: int, patience_s: float) -> float:
    count = problem.sizes["train"]
    if size > count:
        raise not_allowed("train.batch_size", size, f"at most the {count} training examples")
    rows = [part for part in torch.arange(count)[: BATCHES * size].split(size) if len(part) == size]
    device = "cuda" if one.gpu else "cpu"
    batches = list(problem.few(rows, "cpu", channels_last=True))
    loss = problem.own.loss if problem.own else None
    return step_seconds(network, batches, device=device, loss=loss, threads=one.threads, patience_s=patience_s)


def row_seconds(network: nn.Module, spec: ScorerSpec, *, head: bool = True) -> float:
    """Of one weight in an epoch: its features, and its part of a step, from ROWS steps on weights of a network with random gradients."""
    stream = torch.Generator().manual_seed(0)
    params = prunable(network, head=head)
    gradients = {name: torch.randn(weight.shape, generator=stream) for name, weight in params.items()}
    facts = layer_facts(params, gradients)
    flat = [torch.cat([part.detach().reshape(-1).float() for part in parts.values()]) for parts in (params, gradients)]
    layers = torch.arange(len(facts)).repeat_interleave(torch.tensor([fact.numel for fact in facts]))
    chosen = torch.randint(len(layers), (ROWS * spec.batch_size,), generator=stream)
    layer, weight, gradient = (column[chosen] for column in (layers, *flat))
    scorer, target = build_scorer(spec.kind, hidden=spec.hidden, seed=spec.seed), torch.rand(len(chosen), generator=stream)
    threads = torch.get_num_threads()
    torch.set_num_threads(spec.job.cpus_per_worker)
    start = time.perf_counter()
    try:
        features: Tensor = feature_matrix_rows(layer, weight, gradient, facts)
        batches = list(zip(features.split(spec.batch_size), target.split(spec.batch_size), strict=True))
        fit_scorer(scorer, lambda epoch: batches, epochs=1, lr=spec.lr)
    finally:
        torch.set_num_threads(threads)
    return (time.perf_counter() - start) / len(chosen)
