"""The published protocol and its benchmark, in small on the CPU: what is trained, what is not trained again, what is refused."""

import dataclasses
import json
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch

from autosparse.flows.recipes import cifar10_resnet18
from autosparse.library.scorer_files import save_scorer
from autosparse.models.scorers.registry import build_scorer
from autosparse.models.training.images import ImageSet
from autosparse.storage.open_store import open_store
from benchmarks.cifar10_arms import Workbench
from benchmarks.cifar10_gpu import main, table, train_arms
from benchmarks.cifar10_protocol import Arm, plan, setting

ROOT = Path(__file__).resolve().parents[3]
SMALL = ["--cpu-smoke", "--networks", "resnet18", "--methods", "random", "--densities", "0.1"]
FRESH = """
import json, sys
from pathlib import Path
from benchmarks.cifar10_gpu import main
for arguments in json.loads(sys.argv[1]):
    main(arguments)
    print("lines:", hash(Path(arguments[arguments.index("--out") + 1]).read_bytes()))
    print("end of a call")
strangers = {"prefect", "ray", "mlflow", "autosparse.flows", "autosparse.tasks"} & set(sys.modules)
assert not strangers, strangers
"""


def fresh(*calls: list[str]) -> list[str]:
    """What each call prints, one after the other in a process that then has imported no service."""
    done = subprocess.run([sys.executable, "-c", FRESH, json.dumps(calls)], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.split("end of a call\n")[:-1]


def lines(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_a_second_call_trains_nothing_and_neither_imports_a_service(tmp_path: Path) -> None:
    out, report = tmp_path / "arms.jsonl", tmp_path / "report.json"
    first, second = fresh(["--cpu-smoke", "--out", str(out)], ["--cpu-smoke", "--out", str(out), "--json", str(report)])
    assert "8/8 vgg16 snip 0.01 seed 10" in first and "0 arms now, 8 were there" in second
    assert first.splitlines()[-1] == second.splitlines()[-1], "the file was written again"
    arms = lines(out)
    # width 4: stem 36, stages 4*144, 288+3*576+32, 4 times that, 16 times that, classifier 320; in all 43,940
    assert [(arm["network"], arm["kept"]) for arm in arms[:4:2]] == [("resnet18", 4394), ("resnet18", 439)]
    assert all(arm["status"] == "ok" and 0 <= arm["accuracy"] <= 1 and arm["images_per_s"] > 0 for arm in arms)
    written = json.loads(report.read_text())
    assert [(row["network"], row["method"]) for row in written["figures"]] == [
        (network, method) for network in ("resnet18", "vgg16") for method in ("random", "snip")
    ]
    assert written["arms"] == arms and written["epochs"] == 1 and written["missing"] == []


def test_only_what_is_missing_is_trained_and_half_a_line_is_trained_again(tmp_path: Path) -> None:
    out = tmp_path / "arms.jsonl"
    main([*SMALL, "--out", str(out)])
    whole = out.read_text()
    out.write_text(whole + whole[:40])
    main([*SMALL, "0.01", "--out", str(out)])
    assert out.read_text().startswith(whole)
    assert [arm["density"] for arm in lines(out)] == [0.1, 0.01]


def test_a_file_of_another_protocol_is_refused_in_one_line_and_left_alone(tmp_path: Path) -> None:
    out = tmp_path / "arms.jsonl"
    main([*SMALL, "--out", str(out)])
    before = out.read_bytes()
    with pytest.raises(SystemExit) as caught:
        main([*SMALL, "0.01", "--epochs", "2", "--out", str(out)])
    message = f"{out} line 1: epochs: 1 is not allowed; allowed: 2, as in this call; otherwise another --out"
    assert caught.value.code == f"cifar10_gpu: {message}"
    assert out.read_bytes() == before


@pytest.mark.parametrize("text", ["notes of mine", '{"network": "resnet18"}\n', "[1]\n", "no JSON\n"])
def test_a_file_that_holds_no_arms_is_refused_and_left_alone(tmp_path: Path, text: str) -> None:
    out = tmp_path / "notes.txt"
    out.write_text(text)
    with pytest.raises(SystemExit, match=r"notes\.txt.*: not a (finished arm|file of finished arms)"):
        main([*SMALL, "--out", str(out)])
    assert out.read_text() == text


def test_a_fitted_scorer_is_one_of_the_methods_and_another_one_does_not_mix_with_it(tmp_path: Path) -> None:
    store, out = open_store(str(tmp_path)), tmp_path / "arms.jsonl"
    for number in (0, 1):
        save_scorer(store, f"scorer-{number}", build_scorer("mlp", hidden=(4,), seed=number), {"metrics": {}})
    small = ["--cpu-smoke", "--networks", "resnet18", "--densities", "0.1", "--out", str(out)]
    main([*small, "--scorer", str(tmp_path / "scorer-0")])
    assert [arm["method"] for arm in lines(out)] == ["random", "snip", "scorer"]
    assert lines(out)[2]["kept"] == 4394
    with pytest.raises(SystemExit, match=r"line 3: scorer: '\w{12}' is not allowed"):
        main([*small, "--scorer", str(tmp_path / "scorer-1")])
    main(small)
    assert len(lines(out)) == 3


def test_no_arm_begins_beyond_the_budget_and_the_missing_ones_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "arms.jsonl"
    main([*SMALL, "0.01", "--budget-minutes", "0", "--out", str(out)])
    said = capsys.readouterr().out
    assert "2 arms are missing: resnet18 random 0.1 seed 10; resnet18 random 0.01 seed 10" in said
    assert not out.exists()


class Slow:
    """Says that every arm took 400 s."""

    def run(self, arm: Arm) -> dict[str, Any]:
        return {**arm._asdict(), "status": "ok", "accuracy": 0.5, "seconds": 400.0}


@pytest.mark.parametrize(("minutes", "count"), [(6, 1), (7, 4), (None, 4)])
def test_an_arm_begins_when_the_mean_time_of_those_before_fits_into_what_is_left(tmp_path: Path, minutes: float | None, count: int) -> None:
    arms, records = plan(["resnet18"], ["snip"], [0.1, 0.01], [10, 11]), []
    args = Namespace(budget_minutes=minutes, out=tmp_path / "arms.jsonl")
    train_arms(args, arms, {"resnet18": Slow()}, lambda record: {}, records, time.monotonic())  # type: ignore[arg-type]
    assert len(records) == len(lines(args.out)) == count  # 400 s are 6 min 40 s


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--methods", "snipp"], "methods: 'snipp' is not known; did you mean 'snip'?"),
        (["--methods", "scorer"], "scorer: None is not allowed; allowed: a folder with scorer.json and scorer.safetensors"),
        (["--densities", "0"], "densities: 0.0 is not allowed; allowed: > 0 and <= 1"),
        (["--seeds", "1", "1"], r"seeds: \[1, 1\] is not allowed; allowed: no two the same"),
        (["--epochs", "0"], "epochs: 0 is not allowed; allowed: >= 1"),
        (["--networks", "resnet19"], "networks: 'resnet19' is not known; did you mean 'resnet18'?"),
    ],
)
def test_arguments_that_cannot_be_used_are_refused_in_one_line(tmp_path: Path, arguments: list[str], message: str) -> None:
    with pytest.raises(SystemExit, match=rf"^cifar10_gpu: {message}[^\n]*$"):
        main(["--cpu-smoke", "--out", str(tmp_path / "arms.jsonl"), *arguments])


def test_the_real_protocol_asks_for_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="device: 'cpu' is not allowed; allowed: a GPU with CUDA"):
        main(["--out", str(tmp_path / "arms.jsonl")])


def test_the_whole_schedule_is_that_of_the_recipe() -> None:
    recipe = cifar10_resnet18()
    residual, plain = (setting(name, 160, compiled=True) for name in ("resnet18", "vgg16"))
    assert (residual.network, plain.network) == tuple(target.network for target in recipe.fanout.targets)
    assert residual.protocol.train == recipe.fanout.train
    assert residual.protocol.scoring == plain.protocol.scoring == recipe.scoring
    assert dataclasses.replace(residual.protocol.data, name="cifar10", download=True) == recipe.data
    changed = {"lr": 0.1, "gamma": 0.1, "weight_decay": 1e-4}
    assert plain.protocol.train == dataclasses.replace(recipe.fanout.train, **changed)


@pytest.mark.parametrize(("epochs", "milestones"), [(160, (60, 120)), (16, (6, 12)), (40, (15, 30)), (10, (4, 8)), (1, (1, 1))])
def test_milestones_keep_their_share_of_a_shorter_schedule(epochs: int, milestones: tuple[int, ...]) -> None:
    assert setting("vgg16", epochs, compiled=False).protocol.train.milestones == milestones


def test_arms_go_seed_by_seed_and_network_by_network_with_one_dense_arm_each() -> None:
    arms = plan(["resnet18", "vgg16"], ["snip", "dense"], [0.1, 0.01], [10, 11])
    one = [("dense", 1.0), ("snip", 0.1), ("snip", 0.01)]
    assert arms[:3] == [Arm("resnet18", *cell, 10) for cell in one]
    assert arms[3:6] == [Arm("vgg16", *cell, 10) for cell in one]
    assert [arm.seed for arm in arms] == [10] * 6 + [11] * 6


def test_an_arm_does_not_depend_on_the_arms_before_it() -> None:
    stream = torch.Generator().manual_seed(0)
    images = ImageSet(torch.randint(0, 256, (256, 1, 8, 8), generator=stream, dtype=torch.uint8), torch.arange(256) % 10)
    bench = Workbench(setting("resnet18", 1, compiled=False, smoke=True), images, images, 10, None)
    first, other, again = (bench.run(Arm("resnet18", method, 0.1, 10)) for method in ("snip", "random", "snip"))
    assert first["loss"] == again["loss"] != other["loss"]
    assert first["effective_density"] == again["effective_density"]


def test_table_of_means_and_deviations_on_paper() -> None:
    shared = {"network": "vgg16", "scoring_seconds": 2.0, "images_per_s": 1000.0, "seconds": 30.0, "status": "ok"}
    records = [{**shared, "method": "snip", "density": 0.1, "seed": seed, "accuracy": 0.9 + 0.02 * seed} for seed in range(3)]
    records += [{**shared, "method": "random", "density": 0.01, "seed": 0, "accuracy": 0.5}]
    lost = {"network": "vgg16", "method": "random", "density": 0.01, "seed": 1, "accuracy": None, "status": "diverged", "seconds": 6.0}
    assert table([*records, lost]) == [
        {"network": "vgg16", "method": "random", "0.1": "-", "0.01": "50.00 (1), 1 diverged"}
        | {"images/s": 1000, "scoring s": "2.0", "arms min": "0.6"},
        {"network": "vgg16", "method": "snip", "0.1": "92.00 ± 2.00 (3)", "0.01": "-"}
        | {"images/s": 1000, "scoring s": "2.0", "arms min": "1.5"},
    ]
