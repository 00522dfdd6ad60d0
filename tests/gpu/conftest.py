"""What only a GPU shows, against the CPU's float32. `make test-gpu` runs it; AUTOSPARSE_TEST_DEVICE=cpu takes the same path on the CPU.

The torch core alone is needed, but by test_jobs.py, which needs Ray.
"""

import os
from collections.abc import Iterator

import pytest
import torch


@pytest.fixture
def device() -> Iterator[torch.device]:
    """Where the tested side runs, with the product's settings for a GPU (tasks/worker/job.py)."""
    chosen = torch.device(os.environ.get("AUTOSPARSE_TEST_DEVICE", "cuda"))
    assert chosen.type != "cuda" or torch.cuda.is_available(), "no GPU here; AUTOSPARSE_TEST_DEVICE=cpu runs the same tests on the CPU"
    precision = torch.get_float32_matmul_precision()
    if chosen.type == "cuda":
        torch.set_float32_matmul_precision("high")
    yield chosen
    torch.set_float32_matmul_precision(precision)
