"""Cuts of very many scores are the cuts of few: the same weights, found without a copy of all scores."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from autosparse.models.errors import DivergedError, SpecError
from autosparse.models.masks import allocation
from autosparse.models.masks.allocation import global_topk
from autosparse.models.masks.large import nth_highest

FLOATS = st.lists(st.floats(allow_nan=False, allow_subnormal=False, width=32), min_size=1, max_size=60)


@given(FLOATS, st.data(), st.sampled_from([torch.float32, torch.float64]))
@settings(max_examples=200, deadline=None)
def test_the_nth_highest_of_any_numbers(numbers: list[float], data: st.DataObject, dtype: torch.dtype) -> None:
    values = torch.tensor(numbers, dtype=dtype)
    count = data.draw(st.integers(1, len(numbers)))
    wanted = float(values.sort(descending=True).values[count - 1])
    assert nth_highest(lambda: iter(values.split(7)), count) == wanted


def scores(seed: int, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Three layers with many ties, negative numbers and -inf."""
    stream, shapes = torch.Generator().manual_seed(seed), {"a": (40,), "b": (7, 9), "c": (5,)}
    made = {name: torch.randint(-9, 9, shape, generator=stream).to(dtype) / 8 for name, shape in shapes.items()}
    made["b"][0, :4] = -torch.inf
    return made


def cut(large: bool, monkeypatch: pytest.MonkeyPatch, *args: Any, **options: Any) -> dict[str, Tensor] | str:
    """The mask, or the field that an error names."""
    monkeypatch.setattr(allocation, "LARGE", 0 if large else 1 << 28)
    try:
        return global_topk(*args, **options)
    except SpecError as error:
        return str(error).split(":")[0]


@pytest.mark.parametrize("density", [0.02, 0.3, 0.5, 0.97, 1.0])
@pytest.mark.parametrize("floor", [0, 1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_same_mask_either_way(density: float, floor: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(4):
        given, alive = scores(seed, dtype), {name: score > -1 for name, score in scores(seed).items()}
        for living in (None, alive):
            wanted, found = (cut(large, monkeypatch, given, density, floor=floor, alive=living) for large in (False, True))
            if isinstance(wanted, str) or isinstance(found, str):
                assert wanted == found
            else:
                assert all(torch.equal(found[name], keep) for name, keep in wanted.items())


def test_nan_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocation, "LARGE", 0)
    with pytest.raises(DivergedError):
        global_topk({"a": torch.tensor([1.0, float("nan")])}, 0.5)
