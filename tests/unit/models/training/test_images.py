import numpy as np
import pytest
import torch

from autosparse.models.errors import SpecError
from autosparse.models.seeding import generator
from autosparse.models.training.augmentation import AREA, KINDS, RATIO, Augmentation, draw, to_device
from autosparse.models.training.images import channel_statistics, normalise, to_images

FOUR = torch.tensor([[1.0, 2.0], [3.0, 4.0]])


def one(image: torch.Tensor) -> torch.Tensor:
    return image[None, None]


def batch_of(count: int, channels: int = 3, size: int = 8) -> torch.Tensor:
    return torch.randn(count, channels, size, size, generator=generator(0, "batch"))


def test_to_images_copies_arrays_that_cannot_be_written():
    pixels, labels = np.arange(12, dtype=np.uint8).reshape(1, 3, 2, 2), np.array([7], dtype=np.int32)
    pixels.flags.writeable = labels.flags.writeable = False
    images = to_images(pixels, labels)
    assert images.images.tolist() == pixels.tolist() and images.images.dtype == torch.uint8
    assert images.labels.tolist() == [7] and images.labels.dtype == torch.int64
    assert images.images.is_contiguous(memory_format=torch.channels_last) and len(images) == 1


def test_statistics_of_four_pixels_on_paper():
    images = torch.tensor([[[[0, 255]], [[51, 51]]], [[[0, 255]], [[153, 153]]]], dtype=torch.uint8)
    mean, std = channel_statistics(images)
    assert mean == pytest.approx((0.5, 0.4), abs=1e-12) and std == pytest.approx((0.5, 0.2), abs=1e-12)


def test_a_constant_channel_has_deviation_one():
    assert channel_statistics(torch.full((2, 1, 2, 2), 255, dtype=torch.uint8)) == ((1.0,), (1.0,))


@pytest.mark.parametrize("channels_last", [False, True])
def test_normalise_is_per_channel_in_the_asked_memory_format(channels_last: bool):
    batch = torch.tensor([[[[0, 255]], [[51, 102]]]], dtype=torch.uint8)
    out = normalise(batch, (0.5, 0.2), (0.5, 0.4), channels_last=channels_last)
    assert out.dtype == torch.float32 and out.shape == (1, 2, 1, 2)
    torch.testing.assert_close(out, torch.tensor([[[[-1.0, 1.0]], [[0.0, 0.5]]]]), atol=1e-6, rtol=0)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    square = normalise(torch.zeros(2, 2, 3, 3, dtype=torch.uint8), (0.5, 0.2), (0.5, 0.4), channels_last=channels_last)
    assert square.is_contiguous(memory_format=layout)


def test_normalised_images_can_be_trained_on_after_an_evaluation_normalised_first():
    batch, layer = torch.ones(1, 1, 5, 5, dtype=torch.uint8), torch.nn.Conv2d(1, 1, 1)
    with torch.inference_mode():
        normalise(batch, (0.25,), (0.125,), channels_last=True)
    layer(normalise(batch, (0.25,), (0.125,), channels_last=True)).sum().backward()
    assert layer.weight.grad is not None


@pytest.mark.parametrize(("mean", "std", "field"), [((0.5,), (1.0, 1.0), "data.mean"), ((0.5, 0.5), (), "data.std")])
def test_normalise_refuses_another_number_of_channels(mean: tuple[float, ...], std: tuple[float, ...], field: str):
    with pytest.raises(SpecError, match=rf"^{field}: .* one value per channel \(2\)"):
        normalise(torch.zeros(1, 2, 4, 4, dtype=torch.uint8), mean, std, channels_last=True)


# The padded image is 4 x 4 with zeros around 1 2 / 3 4; an offset (row, column) is the upper left corner of the window.
@pytest.mark.parametrize(
    ("offset", "expected"),
    [((0, 0), [[0, 0], [0, 1]]), ((1, 1), [[1, 2], [3, 4]]), ((2, 1), [[3, 4], [0, 0]]), ((1, 2), [[2, 0], [4, 0]])],
)
def test_shift_and_crop_of_four_pixels_on_paper(offset: tuple[int, int], expected: list[list[int]]):
    assert Augmentation(1, offset=offset).apply(one(FOUR))[0, 0].tolist() == expected
    assert Augmentation(1, offsets=torch.tensor([offset])).apply(one(FOUR))[0, 0].tolist() == expected


def test_flip_mirrors_columns_of_the_chosen_images_only():
    out = Augmentation(flips=torch.tensor([True, False])).apply(torch.stack([FOUR, FOUR])[:, None])
    assert out[:, 0].tolist() == [[[2, 1], [4, 3]], [[1, 2], [3, 4]]]


def test_crops_are_one_per_image():
    out = Augmentation(1, offsets=torch.tensor([[0, 0], [2, 2]])).apply(torch.stack([FOUR, FOUR])[:, None])
    assert out[:, 0].tolist() == [[[0, 0], [0, 1]], [[4, 0], [0, 0]]]


@pytest.mark.parametrize(
    ("kind", "shifts", "crops", "flips"),
    [("none", 0, 0, 0), ("shift", 1, 0, 0), ("shift_flip", 1, 0, 64), ("crop_flip", 0, 64, 64)],
)
def test_each_kind_draws_what_it_says(kind: str, shifts: int, crops: int, flips: int):
    drawn = draw(kind, 64, 2, generator(1, kind))
    assert (drawn.offset is not None, 0 if drawn.offsets is None else len(drawn.offsets)) == (bool(shifts), crops)
    assert (0 if drawn.flips is None else len(drawn.flips)) == flips


def test_offsets_reach_every_place_and_about_half_of_the_images_flip():
    drawn = draw("crop_flip", 10_000, 1, generator(2, "uniform"))
    assert drawn.offsets is not None and drawn.flips is not None
    places = torch.bincount(drawn.offsets[:, 0] * 3 + drawn.offsets[:, 1], minlength=9)
    assert places.numel() == 9 and places.min() > 1000 and places.max() < 1230  # 1,111 expected, deviation 31
    assert 4800 < drawn.flips.sum() < 5200  # deviation 50
    shifts = {draw("shift", 2, 1, generator(3, index)).offset for index in range(100)}
    assert shifts == {(row, column) for row in range(3) for column in range(3)}


@pytest.mark.parametrize("kind", ["none", "shift", "shift_flip", "crop_flip"])
def test_shares_of_the_ranks_are_the_rows_of_the_whole(kind: str):
    images, drawn = batch_of(6), draw(kind, 6, 3, generator(4, "ranks"))
    whole = drawn.apply(images)
    parts = [drawn.apply(images[rows], rows) for rows in (slice(0, 2), slice(2, 6))]
    assert torch.equal(torch.cat(parts), whole)
    assert kind == "none" or not torch.equal(whole, images)


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("kind", ["shift_flip", "crop_flip"])
def test_the_memory_format_stays(kind: str, layout: torch.memory_format):
    images = batch_of(4).contiguous(memory_format=layout)
    assert draw(kind, 4, 2, generator(5, "layout")).apply(images).is_contiguous(memory_format=layout)


def test_same_stream_same_augmentation_and_another_stream_another():
    images = batch_of(16)
    first, again, other = (draw("crop_flip", 16, 2, generator(6, name)).apply(images) for name in ("a", "a", "b"))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_bad_kind_and_too_large_pad_are_refused():
    with pytest.raises(SpecError, match=r"^data.augment: 'rotate' is not allowed; allowed: none \| shift"):
        draw("rotate", 1, 0, generator(7, "bad"))
    with pytest.raises(SpecError, match=r"^data.pad: 8 is not allowed; allowed: < 8, the image size"):
        draw("shift", 1, 8, generator(7, "bad")).apply(batch_of(1))


@pytest.mark.parametrize("kind", KINDS)
def test_augmentations_copied_together_change_each_batch_as_before(kind: str):
    drawn = [draw(kind, 6, 2, generator(0, kind, step)) for step in range(3)]
    batch = batch_of(6)
    moved = to_device(drawn, torch.device("cpu"))
    assert len(moved) == 3
    for old, new in zip(drawn, moved, strict=True):
        assert torch.equal(old.apply(batch[1:4], slice(1, 4)), new.apply(batch[1:4], slice(1, 4)))


def test_a_resized_crop_is_a_window_scaled_to_the_whole():
    image = torch.arange(16.0).view(1, 1, 4, 4)

    def window(*box: float) -> list[list[float]]:
        return Augmentation(boxes=torch.tensor([box], dtype=torch.float32)).apply(image)[0, 0].tolist()

    assert torch.allclose(torch.tensor(window(0, 0, 1, 1)), image[0, 0], atol=1e-5)
    # the right half, twice as wide: pixels at 2 - .25, 2 + .25, 3 - .25 and 3 + .25, the last at the border
    assert torch.allclose(torch.tensor(window(0.5, 0, 0.5, 1))[0], torch.tensor([1.75, 2.25, 2.75, 3.0]), atol=1e-5)
    # the lower half, twice as high
    assert torch.allclose(torch.tensor(window(0, 0.5, 1, 0.5))[:, 0], torch.tensor([7.0, 9.0, 11.0, 12.0]), atol=1e-5)


def test_windows_of_resized_crops_have_the_areas_and_ratios_of_the_paper():
    boxes = draw("resized_crop_flip", 20_000, 0, generator(3, "boxes")).boxes
    assert boxes is not None and (boxes >= 0).all() and (boxes[:, :2] + boxes[:, 2:] <= 1 + 1e-6).all()
    area, ratio = boxes[:, 2] * boxes[:, 3], boxes[:, 2] / boxes[:, 3]
    whole = (boxes[:, 2:] < 1).all(1)  # those that were not cut
    assert (
        area.min() >= AREA[0] * 0.999
        and area.max() <= 1
        and ratio[whole].min() >= RATIO[0] * 0.999
        and ratio[whole].max() <= RATIO[1] * 1.001
    )
    assert float(area[whole].mean()) == pytest.approx(0.5, abs=0.03) and float(ratio.log().mean()) == pytest.approx(0, abs=0.01)
