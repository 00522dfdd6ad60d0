"""Bytes on disk, worked out by hand."""

import pytest
import torch

from autosparse.models.networks.stored import stored_bytes


def sparse(kept: int, *shape: int) -> torch.Tensor:
    """A tensor whose first `kept` numbers are not zero."""
    found = torch.zeros(shape)
    found.view(-1)[:kept] = -0.5
    return found


@pytest.mark.parametrize(
    ("tensor", "dense", "bitmap", "csr"),
    [
        (sparse(3, 4, 5), 40, 3 + 6, 3 * (2 + 1) + 4 * 5),  # 20 bits are 3 bytes
        (sparse(20, 4, 5), 40, 3 + 40, 20 * 3 + 4 * 5),
        (sparse(0, 4, 5), 40, 3, 4 * 5),
        (sparse(2, 2, 4, 8, 8), 1024, 64 + 4, 2 * (2 + 1) + 4 * 3),  # 4 * 8 * 8 = 256 columns have one byte
        (sparse(2, 2, 257), 1028, 65 + 4, 2 * (2 + 2) + 4 * 3),
        (sparse(2, 1, 2**16), 2**17, 2**13 + 4, 2 * (2 + 2) + 4 * 2),
        (sparse(2, 1, 2**16 + 1), 2**17 + 2, 2**13 + 1 + 4, 2 * (2 + 4) + 4 * 2),
        (sparse(1, 6), 12, 12, 12),  # a bias stays dense
        (torch.tensor(0.5), 2, 2, 2),
        (torch.tensor(7), 0, 0, 0),  # the batches that a norm has counted
        (torch.zeros(0, 3), 0, 0, 0),
    ],
)
def test_a_tensor_by_every_way(tensor: torch.Tensor, dense: int, bitmap: int, csr: int) -> None:
    assert stored_bytes([tensor]) == {"dense": dense, "bitmap": bitmap, "csr": csr, "best": min(dense, bitmap, csr)}


def test_each_tensor_is_stored_in_its_own_way() -> None:
    full, half, thin, bias = sparse(20, 4, 5), sparse(400, 2, 400), sparse(2, 2, 400), sparse(4, 4)
    assert stored_bytes([full, half, thin, bias])["best"] == 40 + (100 + 800) + (2 * 4 + 12) + 8
    assert stored_bytes([]) == {"dense": 0, "bitmap": 0, "csr": 0, "best": 0}
