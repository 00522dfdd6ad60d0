"""Images that are streamed because they exceed the budget: everything is as it is for images in memory, bit for bit."""

import multiprocessing
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from autosparse.models import seeding
from autosparse.models.errors import DataError
from autosparse.models.specs.run_specs import DataSpec, JobSpec, TrainSpec
from autosparse.models.training.examples import Pass
from autosparse.models.training.loop import evaluate, fit
from autosparse.models.training.trainer import Trainer
from autosparse.storage.image_loader import ImageLoader
from autosparse.tasks.worker.loaders import close_all
from autosparse.tasks.worker.problem import ImageProblem, Problem, StreamedProblem, open_problem
from tests.image_sets import GREY, RED, encoded, write_folder, write_parquet

SIDE, TRAIN, TEST = 12, 60, 20
BUDGET = "AUTOSPARSE_IMAGE_MEMORY"


@pytest.fixture(autouse=True)
def no_process_stays():
    yield
    close_all()
    assert not multiprocessing.active_children()


def pictures(count: int, seed: int = 0) -> list[bytes]:
    drawn = np.random.default_rng(seed).integers(0, 256, (count, SIDE, SIDE, 3), np.uint8)
    return [encoded(one) for one in drawn]


def a_set(root: Path, kind: str) -> DataSpec:
    """Two classes, sorted in Parquet, so that a limit takes rows that are not in the order of the file."""
    train, test = pictures(TRAIN), pictures(TEST, 1)
    if kind == "image_folder":
        named = {"train": train, "test": test}
        files = {f"{split}/{row % 2}/{row:03}.png": one for split, ones in named.items() for row, one in enumerate(ones)}
        write_folder(root / kind, files)
    else:
        write_parquet(root / kind / "train.parquet", train, [row * 2 // TRAIN for row in range(TRAIN)], group=7)
        write_parquet(root / kind / "test.parquet", test, [row * 2 // TEST for row in range(TEST)], group=7)
    return DataSpec(name=kind, path=str(root / kind), train_limit=52, augment="crop_flip", pad=2)


def both(data: DataSpec, cache: Path | None, monkeypatch: pytest.MonkeyPatch) -> tuple[ImageProblem, StreamedProblem]:
    monkeypatch.setenv(BUDGET, "1GB")
    held = open_problem(data, cache)
    monkeypatch.setenv(BUDGET, "1KB")
    streamed = open_problem(data, cache)
    assert isinstance(held, ImageProblem) and isinstance(streamed, StreamedProblem)
    return held, streamed


def streamed(data: DataSpec, cache: Path | None, monkeypatch: pytest.MonkeyPatch) -> StreamedProblem:
    monkeypatch.setenv(BUDGET, "1")
    problem = open_problem(data, cache)
    assert isinstance(problem, StreamedProblem)
    return problem


def trained(problem: Problem) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Two epochs of a network that draws from torch's own generator."""
    with seeding.scoped(0, "test"):
        network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3), nn.Flatten(), nn.Linear(400, 2))
    trainer = Trainer(
        network=network,
        forward=network,
        spec=TrainSpec(epochs=2, batch_size=10, lr=0.1, momentum=0.9, nesterov=False, weight_decay=0.0, schedule="constant"),
        data=problem.data,
        job=JobSpec(),
        train=problem.examples("train", "cpu"),
        test=problem.examples("test", "cpu"),
        seed=3,
    )
    fit(trainer, on_epoch=lambda epoch: None)
    return network.state_dict(), evaluate(trainer)


def a_pass(problem: Problem, start: int, mine: slice = slice(None)) -> list[tuple[Tensor, Tensor]]:
    order = Pass(seed=1, epoch=4, start=start, size=8, mine=mine, rank=0, data=problem.data, channels_last=True)
    return list(problem.examples("train", "cpu").epoch(order))


def assert_equal(some: list[tuple[Tensor, Tensor]], others: list[tuple[Tensor, Tensor]]) -> None:
    assert len(some) == len(others) > 0
    for (images, labels), (other_images, other_labels) in zip(some, others, strict=True):
        assert torch.equal(images, other_images) and torch.equal(labels, other_labels) and images.stride() == other_images.stride()


@pytest.mark.parametrize("kind", ["image_folder", "parquet"])
def test_a_training_on_streamed_images_is_that_on_images_in_memory(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held, other = both(a_set(tmp_path, kind), tmp_path / "cache", monkeypatch)
    assert (other.digest, other.data, other.facts, other.sizes, other.fit) == (held.digest, held.data, held.facts, held.sizes, held.fit)
    rows = [torch.tensor([5, 3]), torch.tensor([51])]
    assert_equal(*(list(problem.few(rows, "cpu", channels_last=False)) for problem in (held, other)))
    other.examples("train", "cpu")
    assert multiprocessing.active_children(), "before the first step, for which a watchdog waits"
    (weights, metrics), (other_weights, other_metrics) = trained(held), trained(other)
    assert metrics == other_metrics and all(torch.equal(weights[name], other_weights[name]) for name in weights)


def test_a_pass_begins_in_the_middle_and_is_shared_out_among_ranks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = streamed(a_set(tmp_path, "parquet"), tmp_path / "cache", monkeypatch)
    whole = a_pass(problem, 0)
    assert len(whole) == 6
    again = streamed(a_set(tmp_path, "parquet"), tmp_path / "cache", monkeypatch)
    assert_equal(whole[4:], a_pass(again, 4))
    halves = [a_pass(problem, 2, mine) for mine in (slice(0, 4), slice(4, 8))]
    joined = [(torch.cat([a, c]), torch.cat([b, d])) for (a, b), (c, d) in zip(*halves, strict=True)]
    assert all(torch.equal(images, other) for (images, _), (other, _) in zip(whole[2:], joined, strict=True))


def test_a_pass_that_is_left_and_two_at_once_disturb_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = streamed(a_set(tmp_path, "parquet"), tmp_path / "cache", monkeypatch)
    examples, rows = problem.examples("train", "cpu"), torch.arange(48).split(8)
    whole = list(examples.batches(rows, problem.data, channels_last=False))
    left = examples.batches(rows, problem.data, channels_last=False)
    next(left)
    assert_equal(whole, list(examples.batches(rows, problem.data, channels_last=False)))  # while the other is under way
    del left
    assert_equal(whole, list(examples.batches(rows, problem.data, channels_last=False)))


@pytest.mark.parametrize(
    "files",
    [
        {"train/a/1.png": encoded(GREY), "train/b/1.png": encoded(np.array(RED * 2)), "test/a/1.png": encoded(GREY)},
        {"train/a/1.png": encoded(np.array(RED * 2)), "train/b/1.png": encoded(GREY), "test/a/1.png": encoded(GREY)},
        {"train/a/1.png": encoded(GREY), "train/b/1.png": encoded(GREY), "test/a/1.png": encoded(np.array(RED * 2))},
        {"train/a/1.png": encoded(GREY), "train/b/1.png": encoded(GREY), "test/a/1.png": encoded(GREY)},
        {"train/a/1.tga": encoded(np.array(RED * 2), "TGA"), "train/b/1.png": encoded(GREY), "test/a/1.png": encoded(GREY)},
    ],
)
@pytest.mark.parametrize("size", [None, 3])
def test_grey_among_colour_has_the_digest_of_images_in_memory(
    files: dict[str, bytes], size: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autosparse.storage.streamed_images.LOOKED_AT", 1)
    data = DataSpec(name="image_folder", path=str(write_folder(tmp_path / "set", files)), size=size)
    monkeypatch.setenv(BUDGET, "1GB")
    held = open_problem(data, None)
    other = streamed(data, None, monkeypatch)
    assert (other.digest, other.shape, other.data) == (held.digest, held.shape, held.data)
    every = [torch.tensor([0]), torch.tensor([1])]
    assert_equal(*(list(problem.few(every, "cpu", channels_last=False)) for problem in (held, other)))


def test_images_that_cannot_be_decoded_are_all_named_before_anything_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, said = a_set(tmp_path, "image_folder"), []
    monkeypatch.setattr("autosparse.storage.streamed_images.LOOKED_AT", 7)
    for row in range(0, 24, 2):
        (tmp_path / f"image_folder/train/0/{row:03}.png").write_bytes(b"\x89PNG\r\n\x1a\nno")
    for budget in ("1GB", "1"):
        monkeypatch.setenv(BUDGET, budget)
        with pytest.raises(DataError, match=r"^12 of 52 images cannot be used: .*train/0/000\.png.* and 2 more; allowed: ") as caught:
            open_problem(data, tmp_path / "cache")
        said.append(str(caught.value))
    assert said[0] == said[1]


def test_another_size_is_one_line_that_names_the_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = a_set(tmp_path, "image_folder")
    place = tmp_path / "image_folder/train/1/017.png"
    place.write_bytes(encoded(GREY))
    with pytest.raises(DataError, match=rf"^{place}: 2 x 2, but the first image is 12 x 12; allowed: "):
        streamed(data, tmp_path / "cache", monkeypatch)


def test_a_pack_that_is_cut_short_is_made_again_and_one_that_is_gone_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, cache = a_set(tmp_path, "image_folder"), tmp_path / "cache"
    first = streamed(data, cache, monkeypatch)
    file = first.arrays.train.folder / "images.bin"
    file.write_bytes(file.read_bytes()[:-5])
    again = streamed(data, cache, monkeypatch)
    assert again.digest == first.digest and len(a_pass(again, 5)) == 1
    close_all()
    shutil.rmtree(file.parent)
    with pytest.raises(DataError, match=r"-packed: packed images are gone or cut short; allowed: [^\n]*$"):
        a_pass(streamed_again(again), 0)


def streamed_again(problem: StreamedProblem) -> StreamedProblem:
    """The same images for another job."""
    return StreamedProblem(problem.arrays, problem.spec)


def test_they_are_looked_through_once_per_machine_and_without_a_cache_leave_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, cache = a_set(tmp_path, "parquet"), tmp_path / "cache"
    monkeypatch.setenv(BUDGET, "1")
    told: list[str] = []
    digests = {open_problem(data, cache, told.append).digest for _ in range(2)}
    assert told == ["train: packing 52 images", "test: packing 20 images"] and len(digests) == 1
    without: Any = open_problem(data, None)
    folder = without.arrays.train.folder
    assert folder.is_dir() and without.digest in digests
    del without
    assert not folder.exists()


def test_the_budget_decides_and_what_is_one_array_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, needed = a_set(tmp_path, "image_folder"), (52 + TEST) * 3 * SIDE * SIDE
    for budget, kind in ((needed, ImageProblem), (needed - 1, StreamedProblem)):
        monkeypatch.setenv(BUDGET, str(budget))
        assert isinstance(open_problem(data, tmp_path / "cache"), kind)
    assert isinstance(open_problem(DataSpec(name="digits"), None), ImageProblem)


def test_a_process_that_was_killed_is_an_error_and_not_a_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = streamed(a_set(tmp_path, "parquet"), tmp_path / "cache", monkeypatch)
    loader = ImageLoader(problem.arrays.packs, processes=1)
    batches = loader.read("train", [torch.arange(8)] * 50)
    next(batches)
    (process,) = multiprocessing.active_children()
    process.kill()
    with pytest.raises((RuntimeError, EOFError, OSError)):
        list(batches)
    loader.close()


def test_what_is_drawn_elsewhere_is_untouched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = streamed(a_set(tmp_path, "parquet"), tmp_path / "cache", monkeypatch)
    before = torch.get_rng_state()
    a_pass(problem, 0)
    assert torch.equal(torch.get_rng_state(), before)
