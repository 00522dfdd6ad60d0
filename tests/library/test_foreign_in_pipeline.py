"""Foreign networks through the pipeline's own doors: built from a spec, trained under a mask as an arm is, pruned from the command line."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import torch
from torch import nn

import autosparse
from autosparse.library.folder import Built
from autosparse.models.errors import SpecError
from autosparse.models.masks import mask as masks
from autosparse.models.networks.build import build_network
from autosparse.models.networks.layout import memory_format
from autosparse.models.specs.fields import fingerprint, from_plain, to_plain
from autosparse.models.specs.run_specs import DataSpec, JobSpec, NetworkSpec, TrainSpec
from autosparse.models.training.images import ImageSet
from autosparse.models.training.loop import fit
from autosparse.models.training.trainer import Trainer
from tests.library.foreign_networks import KINDS

ROOT = Path(__file__).resolve().parents[2]
HERE = "tests.library.foreign_networks"
FACTORIES = sorted(name for name in KINDS if name not in ("lstm", "gru", "rnn"))
TRAIN = TrainSpec(epochs=2, batch_size=16, lr=0.02, momentum=0.9, nesterov=True, weight_decay=5e-4, schedule="onecycle", warmup=0.3)
DATA = DataSpec(name="digits", mean=(0.5,), std=(0.25,))
Typed = Callable[..., CompletedProcess[str]]


def built(factory: str, *, seed: int = 0, **fields: object) -> nn.Module:
    spec = NetworkSpec(name=f"{HERE}:{factory}", **fields)  # type: ignore[arg-type]
    return build_network(spec, image_shape=(1, 8, 8), num_classes=10, seed=seed)


def images(count: int) -> ImageSet:
    stream = torch.Generator().manual_seed(1)
    return ImageSet(torch.randint(0, 256, (count, 1, 8, 8), generator=stream, dtype=torch.uint8), torch.arange(count) % 10)


@pytest.mark.parametrize("factory", FACTORIES)
def test_it_trains_under_a_mask_in_channels_last_order(factory: str) -> None:
    network = built(factory)
    network.to(memory_format=memory_format(network, channels_last=True))  # type: ignore[call-overload]
    stream = torch.Generator().manual_seed(2)
    mask = {name: torch.rand(param.shape, generator=stream) < 0.3 for name, param in masks.prunable(network).items()}
    job = JobSpec(channels_last=True)
    trainer = Trainer(
        network=network, forward=network, spec=TRAIN, data=DATA, job=job, train=images(48), test=images(20), seed=5, mask=mask
    )
    reports = []
    fit(trainer, on_epoch=reports.append)
    assert len(reports) == 2 and masks.violations(network, mask) == 0
    assert {param.dtype for param in network.parameters()} == {torch.float32}


def test_own_networks_keep_the_weights_they_come_with() -> None:
    weight = built("from_checkpoint").get_parameter("1.weight")
    assert torch.equal(weight, torch.full_like(weight, 0.125))
    drawn = built("from_checkpoint", init="kaiming_in").get_parameter("1.weight")
    assert not torch.equal(weight, drawn)


def test_numpy_and_random_are_seeded_too() -> None:
    first, again, other = built("numpy_init"), built("numpy_init"), built("numpy_init", seed=1)
    assert all(torch.equal(one, two) for one, two in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(first.get_parameter("1.weight"), other.get_parameter("1.weight"))
    assert not torch.equal(first.get_parameter("1.bias"), other.get_parameter("1.bias"))


def test_a_module_is_taken_as_it_is() -> None:
    one, other = built("ready_made"), built("ready_made")
    assert one is not other and torch.equal(one.get_parameter("1.weight"), other.get_parameter("1.weight"))


def test_the_number_of_classes_reaches_keywords() -> None:
    assert built("keywords").get_parameter("1.weight").shape == (10, 64)


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("five", "network: 'outputs of shape (2, 5) for 2 images' is not allowed; allowed: (2, 10), one per class"),
        ("raises", "network: its forward pass raised TypeError"),
    ],
)
def test_what_will_not_do_is_one_line(factory: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        built(factory)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_init_stands_in_fingerprints_as_it_always_did() -> None:
    own = NetworkSpec(name=f"{HERE}:five")
    assert own.init == "own" and fingerprint(own) == fingerprint(NetworkSpec(name=f"{HERE}:five", init="own"))
    drawn = NetworkSpec(name=f"{HERE}:five", init="kaiming_in")
    assert fingerprint(drawn) != fingerprint(own) and from_plain(NetworkSpec, to_plain(drawn), "network") == drawn
    assert NetworkSpec(name="resnet8").init == NetworkSpec(name="torchvision:resnet18").init == "kaiming_in"
    assert fingerprint(NetworkSpec(name="resnet8")) == fingerprint(NetworkSpec(name="resnet8", init="kaiming_in"))


# The command line


def prune(typed: Typed, factory: str, out: Path, *options: str) -> CompletedProcess[str]:
    return typed("prune", f"{HERE}:{factory}", "--data", "digits", "--density", ".1", "--out", str(out), *options)


@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")  # images lie in the cache
@pytest.mark.parametrize("factory", ["views", "packed_attention", "pruned_before", "data_parallel", "gives_dict"])
def test_from_the_command_line_to_a_smaller_network(factory: str, tmp_path: Path, typed: Typed) -> None:
    out = tmp_path / "pruned"
    done = prune(typed, factory, out, "--method", "synflow", "--batches", "1", "--batch-size", "32")
    assert done.returncode == 0, done.stderr
    assert {file.name for file in out.iterdir()} == {"mask.safetensors", "mask.weights.safetensors", "network.json"}
    shown = typed("inspect", str(out), "--json")
    found = json.loads(shown.stdout)
    assert found["kept"] == sum(layer["kept"] for layer in found["layers"].values())
    assert found["method"] == "synflow" and found["density"] == 0.1 and found["multiply_adds"]["after"] < found["multiply_adds"]["before"]
    small = typed("compact", str(out), "--out", str(tmp_path / "small"))
    assert small.returncode == 0, small.stderr
    sizes = json.loads((tmp_path / "small/compacted.json").read_text())
    assert sizes[1]["parameters"] <= sizes[0]["parameters"]
    assert (tmp_path / "small/network.onnx").stat().st_size and (tmp_path / "small/network.safetensors").stat().st_size
    exported = typed("export", str(out), "--out", str(tmp_path / "network.pt2"))
    assert exported.returncode == 0, exported.stderr


@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")
def test_a_last_batch_of_one_image_is_left_out(tmp_path: Path, typed: Typed) -> None:
    options = ("--method", "snip", "--batch-size", "359", "--batches", "5")  # 1,437 training images: 4 x 359 and one
    done = prune(typed, "norm_of_one_image", tmp_path / "pruned", *options)
    assert done.returncode == 0, done.stderr


@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")
def test_the_mask_is_that_of_the_library(tmp_path: Path, typed: Typed) -> None:
    assert prune(typed, "spare", tmp_path / "m.safetensors", "--method", "magnitude").returncode == 0
    here = autosparse.prune(built("spare"), method="magnitude", density=0.1, warn=False, example=torch.zeros(1, 1, 8, 8))
    assert autosparse.Mask.load(tmp_path / "m.safetensors").checksum == here.checksum


@pytest.mark.parametrize(
    ("factory", "options", "message"),
    [
        ("five", (), "one per class"),
        ("raises", (), "raised TypeError"),
        ("spare", ("--method", "sinp"), "did you mean 'snip'?"),
        ("spare", ("--method", "snip", "--scorer", "x"), "beside --scorer"),
        ("spare", ("--method", "scorer"), "--scorer: None is not allowed"),
        ("spare", ("--ignore", "nothing"), "ignore: 'nothing' is not known"),
        ("spare", ("--scorer", "nowhere"), "nowhere: no scorer's folder"),
    ],
)
@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")
def test_bad_input_is_one_line_and_leaves_nothing(
    factory: str, options: tuple[str, ...], message: str, tmp_path: Path, typed: Typed
) -> None:
    done = prune(typed, factory, tmp_path / "pruned", *options)
    lines = [line for line in done.stderr.strip().splitlines() if not line.startswith("the whole traceback is in")]
    assert done.returncode == 2 and len(lines) == 1 and message in lines[0], done.stderr
    assert not any((tmp_path / "pruned").glob("*"))


def test_a_folder_that_cannot_be_used_is_found_before_the_work(tmp_path: Path, typed: Typed) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other/notes.txt").write_text("mine")
    assert "--out" in prune(typed, "spare", tmp_path / "other").stderr
    (tmp_path / "file").write_text("mine")
    assert "--out" in prune(typed, "spare", tmp_path / "file").stderr
    assert "no folder of 'autosparse prune'" in typed("inspect", str(tmp_path)).stderr


@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")
def test_keywords_reach_the_factory_and_the_folder_of_a_pruned_network(tmp_path: Path, typed: Typed) -> None:
    out, small = tmp_path / "pruned", ("--keyword", "depth=1", "--keyword", "patch_size=4", "--keyword", "embed_dim=12")
    asked = ("prune", "timm:vit_tiny_patch16_224", "--data", "digits", "--density", ".5", "--out", str(out), "--batches", "1")
    done = typed(*asked, *small)
    assert done.returncode == 0, done.stderr
    assert json.loads((out / "network.json").read_text())["keywords"] == {"depth": 1, "patch_size": 4, "embed_dim": 12}
    found = json.loads(typed("inspect", str(out), "--json").stdout)
    assert found["layers"]["patch_embed.proj.weight"]["shape"] == [12, 1, 4, 4]
    assert not any(name.startswith("blocks.1.") for name in found["layers"])
    plain = json.loads((out / "network.json").read_text())
    assert Built(**{name: value for name, value in plain.items() if name != "keywords"}).keywords == {}  # of earlier folders


@pytest.mark.parametrize(
    ("keyword", "message"),
    [
        ("depth", "--keyword: 'depth' is not allowed; allowed: NAME=VALUE, e.g. depth=3"),
        ("dephts=3", "network.keywords.dephts: 3 is not allowed; allowed: a keyword that timm:resnet10t takes"),
        ("pretrained=true", "network.keywords.pretrained: True is not allowed; allowed: none: nothing is downloaded"),
    ],
)
def test_a_keyword_that_will_not_do_is_one_line(keyword: str, message: str, tmp_path: Path, typed: Typed) -> None:
    done = typed("prune", "timm:resnet10t", "--data", "digits", "--density", ".5", "--out", str(tmp_path / "x"), "--keyword", keyword)
    assert done.returncode == 2 and done.stderr.startswith(f"error: {message}") and done.stderr.count("\n") == 1
    assert not (tmp_path / "x").exists()


def test_a_network_made_while_its_module_is_imported_is_the_same_in_every_process(tmp_path: Path) -> None:
    (tmp_path / "made_at_import.py").write_text("from tests.library.foreign_networks import stack\nnetwork = stack()\n")
    program = (
        f"import sys; sys.path.append({str(tmp_path)!r})\n"
        "import torch; torch.manual_seed(int(sys.argv[1]))\n"
        "from autosparse.models.networks.build import build_network\n"
        "from autosparse.models.specs.run_specs import NetworkSpec\n"
        "network = build_network(NetworkSpec(name='made_at_import:network'), image_shape=(1, 8, 8), num_classes=10, seed=0)\n"
        "print(sum(float(param.detach().double().abs().sum()) for param in network.parameters()), torch.initial_seed())\n"
    )
    first, second = (
        subprocess.run([sys.executable, "-c", program, seed], check=True, cwd=ROOT, capture_output=True, text=True, timeout=120).stdout
        for seed in "12"
    )
    assert first.split()[0] == second.split()[0] and [first.split()[1], second.split()[1]] == ["1", "2"]
