"""The library gives the pipeline's masks, bit for bit: for the same network, batches and seed."""

from pathlib import Path

import pytest
import torch
from torch import nn

import autosparse
from autosparse.flows.recipes import smoke
from autosparse.models.masks.mask import checksum
from autosparse.models.networks.build import build_network
from autosparse.models.specs.fanout import TargetSpec
from autosparse.models.specs.run_specs import DataSpec, NetworkSpec
from autosparse.storage.mask_files import load_mask
from autosparse.storage.open_store import open_store
from autosparse.storage.paths import method_key
from autosparse.tasks.worker.inputs import config_of, launched
from autosparse.tasks.worker.problem import open_problem
from autosparse.tasks.worker.score_target import ScoringInputs, score_target
from autosparse.tasks.worker.scoring_batches import scoring_batches
from tests.worker_jobs import NOBODY, job_on

pytestmark = [
    pytest.mark.filterwarnings("ignore::autosparse.MaskWarning"),
    pytest.mark.filterwarnings("ignore:The given NumPy array is not writable"),  # images lie in the cache
]

NETWORKS = (NetworkSpec(name="resnet8", width=4), NetworkSpec(name="tests.library.foreign_networks:packed_attention"))


METHODS = ["random", "erk", "snip", "grasp", "synflow", "ntk_sap", "phew", "smallest_paths"]
GRAINS = ["erk(grain=channels)", "snip(grain=channels,widths=scores)", "snip(grain=kernels)", "synflow(grain=mixed,inside=0.5)"]
CASES = [
    *(pytest.param(network, method, id=f"{method}-{network.label}") for method in METHODS for network in NETWORKS),
    *(pytest.param(NETWORKS[0], method, id=method) for method in GRAINS),
]


@pytest.mark.parametrize(("network", "method"), CASES)
def test_prune_and_the_pipeline_agree(network: NetworkSpec, method: str, tmp_path: Path) -> None:
    densities = [0.2, 0.05] if method in METHODS else [0.5, 0.3]
    store, data, seed = open_store(str(tmp_path)), DataSpec(name="digits", train_limit=200, test_limit=50), 3
    job, train = job_on(store), smoke().fanout.train
    inputs = ScoringInputs(
        target=TargetSpec(network=network),
        data=data,
        seed=seed,
        method=method,
        densities=tuple(densities),
        min_per_layer=0,
        controls=("shuffle",),
        repair=False,
        train=train,
        scorer=None,
        step=f"s/{method_key(method)}",
    )
    report = score_target(launched(config_of(job.run, inputs), job.launch, NOBODY))
    problem = open_problem(data, None)
    mine = build_network(network, seed=seed, **problem.fit)
    batches = list(scoring_batches(job, problem, seed, training=train))
    for found, control in ((report["cuts"], None), (report["controls"]["shuffle"], "shuffle")):
        masks = autosparse.prune(mine, batches, method=method, density=densities, seed=seed, control=control)
        for mask, cut in zip(masks, found.values(), strict=True):
            assert mask.checksum == checksum(load_mask(store.read(cut["mask"]))) == cut["checksum"]


def test_torch_is_left_with_its_random_state() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Dropout(0.5), nn.Linear(16, 4))
    images, before = torch.zeros(2, 1, 8, 8), torch.random.get_rng_state()
    for method in ("random", "snip", "ntk_sap", "growth"):
        autosparse.prune(network, [(images, torch.tensor([0, 3]))], method=method, density=0.5, look_ahead_steps=1)
        assert torch.equal(torch.random.get_rng_state(), before)
