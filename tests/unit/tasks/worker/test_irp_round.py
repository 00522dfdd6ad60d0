"""Rounds of an IRP over channels, as the worker runs them, on digits."""

import hashlib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray.train
import torch

from autosparse.flows.recipes import smoke
from autosparse.models.masks import mask as masks
from autosparse.models.scorers.labels import rounds_survived
from autosparse.models.specs.run_specs import DataSpec, JobSpec, NetworkSpec, ScoringSpec
from autosparse.storage import paths
from autosparse.storage.checkpoints import load_tensors
from autosparse.storage.mask_files import load_mask
from autosparse.storage.open_store import open_store
from autosparse.tasks.worker.inputs import Launch, RunInputs, config_of, launched
from autosparse.tasks.worker.irp_round import RoundInputs, run_round

pytestmark = pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")  # images lie in the cache


@pytest.fixture
def rounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The reports of two rounds down to a quarter of the multiply-adds, with a ticket at .4."""
    monkeypatch.setattr(ray.train, "report", lambda metrics, checkpoint=None: None)
    monkeypatch.setattr(ray.train, "get_checkpoint", lambda: None)
    irp = replace(smoke().irp, grain="channels", rounds=2, final_density=0.25)
    found = []
    for index in range(2):
        inputs = RoundInputs(
            irp=irp,
            network=NetworkSpec(name="lenet300-100"),
            data=DataSpec(name="digits", train_limit=256, test_limit=64),
            seed=0,
            index=index,
            source="s",
            step=f"s/{index}",
            step_before="s/0" if index else None,
            ticket_densities=(0.4,),
        )
        config = config_of(RunInputs(storage=str(tmp_path), name="test", scoring=ScoringSpec(batches=1, batch_size=64)), inputs)
        found.append(run_round(launched(config, Launch(job="round", resources=JobSpec()), SimpleNamespace(put=lambda told: None))))
    return found


def test_channels_leave_round_by_round_at_shares_of_the_multiply_adds(rounds: list[dict[str, Any]], tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    first, second = (load_mask(store.read(paths.mask(f"s/{index}"))) for index in range(2))
    ticket = load_mask(store.read(paths.ticket("s", 0.4)))
    # of a network of linear layers weights and multiply-adds are the same number
    for mask, share in ((first, 0.5), (ticket, 0.4), (second, 0.25)):
        assert 0.97 * share < masks.density(mask) <= share
        rows = mask["1.weight"]
        assert torch.equal(rows, rows.any(1)[:, None].expand_as(rows)) and torch.equal(mask["3.weight"].any(0), rows.any(1))
    assert [report["density_after"] for report in rounds] == [masks.density(first), masks.density(second)]
    assert rounds[1]["density"] == masks.density(first)
    survived = rounds_survived([first, second])["1.weight"]  # raises where a channel came back
    assert survived.unique().tolist() == [0, 1, 2] and torch.equal(survived, survived[:, :1].expand_as(survived))
    assert all((ticket[name] | ~keep).all() for name, keep in second.items())


def test_the_first_round_says_which_weights_it_began_with(rounds: list[dict[str, Any]], tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    state = load_tensors(store.read(paths.initial_state("s")), source="s")
    expected = hashlib.sha256()
    for name in sorted(state):  # of linear layers: 1.bias, 1.weight, 3.bias and so on
        expected.update(f"{name} torch.float32 {tuple(state[name].shape)}".encode() + state[name].numpy().tobytes())
    assert rounds[0]["initial_digest"] == expected.hexdigest()[:32]
    assert "initial_digest" not in rounds[1], "it begins with what the first one wrote"
