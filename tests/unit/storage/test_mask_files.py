import pytest
import torch

from autosparse.models.errors import DataError
from autosparse.storage.checkpoints import dump_tensors, load_tensors
from autosparse.storage.mask_files import dump_mask, load_mask


def test_bits_are_packed_first_weight_highest():
    mask = {"layer": torch.tensor([[True, False, True], [False, False, True], [True, True, False]])}
    packed = load_tensors(dump_mask(mask))
    assert packed["layer"].tolist() == [0b10100111, 0b00000000]


def test_round_trip_keeps_shapes_order_and_every_bit():
    drawn = torch.rand(5, 3, 3, 3, generator=torch.Generator().manual_seed(0)) < 0.5
    mask = {"z.conv": drawn, "a.fc": torch.tensor([True]), "m.full": torch.ones(17, dtype=torch.bool), "empty": torch.zeros(0, 4) > 0}
    back = load_mask(dump_mask(mask))
    assert list(back) == ["z.conv", "a.fc", "m.full", "empty"]
    assert all(back[name].dtype == torch.bool and torch.equal(back[name], keep) for name, keep in mask.items())


def test_memory_format_does_not_matter_and_equal_masks_have_equal_bytes():
    mask = torch.rand(4, 3, 3, 3, generator=torch.Generator().manual_seed(1)) < 0.5
    assert dump_mask({"a": mask}) == dump_mask({"a": mask.contiguous(memory_format=torch.channels_last)})


def test_a_million_weights_take_one_bit_each():
    assert len(dump_mask({"layer": torch.ones(1_000_000, dtype=torch.bool)})) < 126_000


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not a mask",
        dump_mask({"layer": torch.ones(64, dtype=torch.bool)})[:-1],
        dump_tensors({"layer": torch.zeros(1, dtype=torch.uint8)}),
        dump_tensors({"layer": torch.zeros(1, dtype=torch.uint8)}, {"shapes": '{"layer": [9]}'}),
        dump_tensors({"layer": torch.zeros(1)}, {"shapes": '{"layer": [8]}'}),
        dump_tensors({"layer": torch.zeros(1, dtype=torch.uint8)}, {"shapes": '{"other": [8]}'}),
        dump_tensors({"layer": torch.zeros(1, dtype=torch.uint8)}, {"shapes": "[8]"}),
    ],
    ids=["empty", "text", "cut", "no shapes", "too few bytes", "floats", "other layer", "no object"],
)
def test_anything_else_is_a_data_error_that_names_the_file(data: bytes):
    with pytest.raises(DataError, match=r"^round-003/mask.safetensors: not an? [^\n]+$"):
        load_mask(data, source="round-003/mask.safetensors")
