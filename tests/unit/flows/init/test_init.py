"""`autosparse init`: three answers make a file that `run --spec` takes; whatever is wrong is one line, and nothing is written."""

import os
import pty
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from autosparse.flows.init import asked as asked_module
from autosparse.flows.init.asked import asked, data_of
from autosparse.flows.spec_file import spec_in
from autosparse.models.errors import SpecError

Typed = Callable[..., subprocess.CompletedProcess[str]]
Types = Callable[[str], object]
DIGITS = ("--data", "digits", "--network", "lenet300-100", "--budget", "2m")


def pictures(folder: Path, *, train: int = 40, test: int = 8, side: int = 8, names: tuple[str, ...] = ("cat", "dog")) -> Path:
    """An image folder: light cats, dark dogs."""
    stream = np.random.default_rng(0)
    for split, count in (("train", train), ("test", test)):
        for row in range(count):
            place = folder / split / names[row % len(names)]
            place.mkdir(parents=True, exist_ok=True)
            pixels = stream.integers(0, 100, (side, side), np.uint8) + np.uint8(100 * (row % len(names)))
            Image.fromarray(pixels).save(place / f"{row}.png")
    return folder


def parquet(folder: Path) -> Path:
    """A folder below which a Parquet file lies."""
    (folder / "data").mkdir(parents=True)
    pq.write_table(pa.table({"label": [0]}), folder / "data/train-00000-of-00001.parquet")
    return folder


def test_a_folder_of_images_becomes_a_spec_that_validates(tmp_path: Path, typed: Typed, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures(tmp_path / "pictures")
    monkeypatch.chdir(tmp_path)
    done = typed("init", "--network", "resnet8", "--network", "lenet300-100", "--data", "./pictures", "--budget", "10m")
    assert done.returncode == 0, done.stderr
    first, *_, line, estimate, last = done.stdout.splitlines()
    assert first == "pictures: 40 training and 8 test images of 8 x 8, grey, 2 classes"
    assert "resnet8: " in done.stdout and "s a step of 20" in done.stdout
    assert "on 2 targets" in line and estimate.startswith("estimated: about ") and " of 10 min on " in estimate
    assert last == "wrote autosparse.yaml; next: autosparse run --spec autosparse.yaml"
    spec = spec_in(Path("autosparse.yaml"))
    assert spec.data.path == str(tmp_path / "pictures") and spec.data.name == "image_folder"
    assert "path: pictures " in Path("autosparse.yaml").read_text()
    assert [network.name for network in spec.irp.networks] == ["resnet8"]
    assert [target.network.name for target in spec.fanout.targets] == ["resnet8", "lenet300-100"]
    assert spec.irp.train == spec.fanout.train and spec.irp.train.lr == 0.02  # lenet has no BatchNorm
    checked = typed("validate", "--spec", "autosparse.yaml")
    assert (checked.returncode, checked.stdout) == (0, f"{line}\n")
    (tmp_path / "specs").mkdir()
    assert typed("init", "specs/mine.yml", *DIGITS[2:], "--data", "pictures").returncode == 0
    assert "path: ../pictures " in Path("specs/mine.yml").read_text() and spec_in(Path("specs/mine.yml")).data.path == spec.data.path


def test_changes_go_on_top_and_reach_the_probe(tmp_path: Path, typed: Typed) -> None:
    file = tmp_path / "mine.yaml"
    changes = ("irp.rounds=5", "data.train_limit=100", "fanout.methods=[snip,scorer]", "data.augment=none", "data.pad=0")
    done = typed("init", str(file), *DIGITS, *(part for change in changes for part in ("--set", change)))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("digits: 100 training and 360 test images")
    spec = spec_in(file)
    assert (spec.irp.rounds, spec.data.train_limit, spec.fanout.methods, spec.data.augment) == (5, 100, ("snip", "scorer"), "none")


def test_criteria_alone_have_no_irp_and_two_seeds(tmp_path: Path, typed: Typed) -> None:
    file = tmp_path / "mine.yaml"
    done = typed("init", str(file), *DIGITS[:4], "--budget", "20s", "--set", "irp.seeds=[]")
    assert done.returncode == 0, done.stderr
    assert "no IRP and no scorer" in done.stdout
    spec, text = spec_in(file), file.read_text()
    assert spec.irp.seeds == () and not spec.fanout.ticket and len(spec.fanout.seeds) == 2 and "scorer" not in spec.fanout.methods
    assert "irp" not in yaml.safe_load(text) and "scorer" not in yaml.safe_load(text)
    assert "# No method here needs a scorer or a ticket, so there is no IRP; `autosparse init` writes one where" in text
    assert "irp.rounds" not in text and "scorer.job" not in text and "--set fanout.train.epochs=12" in text


def test_files_without_a_test_split_lose_a_fifth_to_the_test_and_prune_takes_them(
    tmp_path: Path, typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = np.random.default_rng(0).integers(0, 255, (20, 8, 8), np.uint8)
    for index, picture in enumerate(pictures):
        place = tmp_path / "pictures" / "ab"[index % 2] / f"{index}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(place)
    file = tmp_path / "mine.yaml"
    done = typed("init", str(file), "--network", "lenet300-100", "--data", str(tmp_path / "pictures"), "--budget", "10s")
    assert done.returncode == 0, done.stderr
    assert "pictures: no test split; 20 % of its images are the test (data.test_share)" in done.stdout
    assert spec_in(file).data.test_share == 0.2
    monkeypatch.setenv("HOME", str(tmp_path))
    line = ("prune", "torch.nn:Identity", "--method", "erk", "--density", ".5", "--data", "~/pictures")
    line += ("--out", str(tmp_path / "mask.safetensors"))
    assert "outputs of shape (2, 1, 8, 8) for 2 images" in typed(*line).stderr  # the pictures were read, the network is none for them


def test_a_time_that_is_too_short_is_said(tmp_path: Path, typed: Typed) -> None:
    done = typed("init", str(tmp_path / "mine.yaml"), *DIGITS[:4], "--budget", "10s")
    assert (
        done.returncode == 0 and "of 10 s on " in done.stdout and "more than the budget: this is the shortest run there is" in done.stdout
    )
    assert spec_in(tmp_path / "mine.yaml").irp.rounds == 2


BAD = [
    ((), "--network: missing; allowed: a network by name, torchvision:NAME or package.module:factory"),
    (("--data", "digits", "--network", "resnt8"), "--network: 'resnt8' is not known; did you mean 'resnet8'?"),
    (("--data", "digits", "--network", "no_such:f"), "irp.networks.0.name: 'no_such:f' is not allowed; allowed: package.module:factory"),
    (("--data", "nowhere", "--network", "resnet8"), "--data: 'nowhere' is not allowed; allowed: a data set (digits, "),
    (("--data", "http://x/y", "--network", "resnet8"), "--data: 'http://x/y' is not allowed; allowed: a local folder, s3://bucket/prefix"),
    (("--data", "no_such.module:task", "--network", "resnet8"), "no_such.module:task"),
    ((*DIGITS[:4], "--budget", "soon"), "--budget: 'soon' is not allowed; allowed: a time such as 90s, 5m, 2h, 1d"),
    ((*DIGITS, "--set", "irp.roundz=3"), "irp.roundz: 'roundz' is not known; did you mean 'rounds'?"),
    ((*DIGITS, "--set", "fanout.methods=[sinp]"), "'sinp' is not known; did you mean 'snip'?"),
    ((*DIGITS, "--network", "lenet300-100"), "no two the same"),
    (("mine.json", *DIGITS), "file: 'mine.json' is not allowed; allowed: a file that ends in .yaml or .yml"),
    (("nowhere/mine.yaml", *DIGITS), "file: 'nowhere/mine.yaml' is not allowed; allowed: a file in a folder that exists"),
    (("there.yaml", *DIGITS), "file: 'there.yaml' is not allowed; allowed: a new file, or --force to write over this one"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD)
def test_what_is_wrong_is_one_line_and_nothing_is_written(
    arguments: tuple[str, ...], message: str, tmp_path: Path, typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.yaml").write_text("mine: 1\n")
    done = typed("init", *arguments)
    lines = done.stderr.splitlines()
    assert done.returncode == 2 and any(message in line for line in lines), done
    assert all(line.startswith("error: ") for line in lines) and len(lines) == (1 if arguments else 2)
    assert sorted(path.name for path in tmp_path.glob("*.y*ml")) == ["there.yaml"] and (tmp_path / "there.yaml").read_text() == "mine: 1\n"


def test_force_writes_over_a_file(tmp_path: Path, typed: Typed) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("x" * 20_000)
    assert typed("init", str(file), *DIGITS, "--force").returncode == 0
    assert spec_in(file).data.name == "digits"


def test_images_that_cannot_be_read_are_named(tmp_path: Path, typed: Typed) -> None:
    folder = pictures(tmp_path / "pictures")
    (folder / "train/cat/0.png").write_bytes(b"no picture")
    done = typed("init", str(tmp_path / "mine.yaml"), "--network", "resnet8", "--data", str(folder))
    assert done.returncode == 2 and "train/cat/0.png" in done.stderr and len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "mine.yaml").exists()


def test_what_data_is_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pictures(tmp_path / "pictures", train=2, test=2)
    parquet(tmp_path / "digits")
    found = {text: data_of(text, tmp_path) for text in ("digits", "./digits", "pictures", str(tmp_path / "digits"), "my_pkg.mine:task")}
    assert {text: (data.name, data.path) for text, data in found.items()} == {
        "digits": ("digits", None),
        "./digits": ("parquet", "digits"),
        "pictures": ("image_folder", "pictures"),
        str(tmp_path / "digits"): ("parquet", str(tmp_path / "digits")),
        "my_pkg.mine:task": ("my_pkg.mine:task", None),
    }
    assert data_of("pictures", tmp_path / "specs").path == "../pictures"
    listed = {"s3://b/images": ["train/cat/1.png"], "s3://b/shards": ["data/train-0.parquet"]}
    monkeypatch.setattr(asked_module, "open_store", lambda root: SimpleNamespace(list=lambda: listed[root]))
    assert {root: data_of(root, tmp_path).name for root in listed} == {"s3://b/images": "image_folder", "s3://b/shards": "parquet"}


@pytest.fixture
def types(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], object]]:
    """Standard input is a terminal; `types("5m\\n")` is what a person types there."""
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "r") as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        yield lambda text: os.write(ours, text.encode())
    os.close(ours)


def test_in_a_terminal_what_is_missing_is_asked_for(tmp_path: Path, types: Types, capsys: pytest.CaptureFixture[str]) -> None:
    types("resnt8\nresnet8\n\nsoon\n2h\n")
    found = asked((), None, None, tmp_path)
    assert (found.networks[0].name, found.data.name, found.budget_s) == ("resnet8", "digits", 7200)
    said = capsys.readouterr().out
    assert "Network, a network by name" in said and "did you mean 'resnet8'?" in said and "[30m]: --budget: 'soon' is not allowed" in said


def test_in_a_terminal_nothing_else_is_asked_for(tmp_path: Path, types: Types, capsys: pytest.CaptureFixture[str]) -> None:
    types("\n")
    found = asked(("vgg11", "resnet8"), "mnist", None, tmp_path)
    assert ([network.name for network in found.networks], found.data.name, found.budget_s) == (["vgg11", "resnet8"], "mnist", 1800)
    assert capsys.readouterr().out.startswith("Time that the run may take")


def test_the_end_of_the_terminal_ends_the_questions(tmp_path: Path, types: Types) -> None:
    types("\x04")  # Ctrl-D
    with pytest.raises(SpecError, match=r"^network: missing; allowed: an answer, or the option$"):
        asked((), "digits", "5m", tmp_path)
