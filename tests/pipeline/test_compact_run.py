"""A run whose masks are trained as smaller networks: what it reports, what it shows, and its weights read again."""

import json
from pathlib import Path

import pytest
import torch

from autosparse.models.networks.calls import logits_of
from autosparse.models.training.images import normalise
from autosparse.storage.open_store import open_store
from autosparse.tasks.arm_networks import trained_network
from autosparse.tasks.results.record import load_record
from autosparse.tasks.worker.problem import ImageProblem, open_problem
from tests.pipeline.command_line import SMALL, cli

pytestmark = [
    pytest.mark.services,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:The given NumPy array is not writable"),  # images lie in the cache
]
LINE = "Trained as smaller networks, dead channels at zero (fanout.compact): "
CHANGES = (
    *("--set", f"irp.networks=[{json.dumps(SMALL)}]"),
    *("--set", f"fanout.targets=[{json.dumps({'network': SMALL})}]"),
    *("--set", 'fanout.methods=["synflow","grda(c=0.05,mu=0.8)"]'),
    *("--set", "fanout.densities=[0.1]"),
    *("--set", "fanout.compact=true"),
)


def test_a_compacted_run_is_reported_shown_and_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    done = cli(home, "run", "--recipe", "smoke", "--name", "small", *CHANGES)
    assert done.returncode == 0, done.stderr[-3000:]
    monkeypatch.setenv("AUTOSPARSE_HOME", str(home))
    store = open_store(str(home / "storage"))
    record = load_record(store, "small")
    arms = {arm["method"]: arm for arm in record.arms}
    assert {name for name, arm in arms.items() if "compacted" in arm} == {"synflow", *({"ticket"} & set(arms))}
    facts = arms["synflow"]["compacted"]
    assert (
        facts["parameters"]["after"] < facts["parameters"]["before"] and facts["multiply_adds"]["after"] < facts["multiply_adds"]["before"]
    )
    assert {arm["protocol"]["training"] for arm in arms.values()} == {"compacted"}

    network, mask, _ = trained_network(store, "small", "synflow@0.1")
    assert sum(param.numel() for param in network.parameters()) == facts["parameters"]["after"] and mask.keys()
    problem = open_problem(record.spec.data, None)
    assert isinstance(problem, ImageProblem)
    arrays, data = problem.arrays, problem.data
    pixels = normalise(torch.from_numpy(arrays.test_images), data.mean, data.std, channels_last=False)
    right = (logits_of(network.eval()(pixels)).argmax(1) == torch.from_numpy(arrays.test_labels)).float().mean()
    assert float(right) == pytest.approx(arms["synflow"]["accuracy"], abs=2 / len(pixels))

    shown = cli(home, "show", "small")
    assert shown.returncode == 0 and f"{LINE}synflow" in done.stdout and f"{LINE}synflow" in shown.stdout
    assert f"{LINE}synflow" in (home / "storage/runs/small/summary/report.html").read_text()
    refused = cli(home, "valley", "small", "--first", "dense", "--second", "synflow@0.1")
    assert refused.returncode and "it was trained as a smaller network (fanout.compact)" in refused.stderr
    written = cli(home, "compact", "small", "synflow@0.1", "--out", str(tmp_path / "out"))
    assert written.returncode == 0, written.stderr[-3000:]
