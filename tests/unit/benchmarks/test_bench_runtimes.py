"""Candidates of the runtimes' benchmark are one function, what they are compared by is right, and a wrong one is told of."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from autosparse.models.masks.reparametrized import copied
from benchmarks.bench_runtimes import Effort, break_even, build, calibrated, check, compare, main, masks, measure, shown
from benchmarks.runtimes import CANDIDATES, Case, scipy_csr, sparse_layers, torch_bsr, torch_coo, torch_csr
from benchmarks.stored_bytes import bytes_by_way

MULTIPLIERS = [torch_csr, torch_coo, torch_bsr, scipy_csr]
QUICK = Effort(repeat=1, seconds=0)


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    count = torch.get_num_threads()
    yield
    torch.set_num_threads(count)


def test_the_quick_run_times_every_candidate_that_is_there_and_weighs_the_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--quick", "--json", str(tmp_path / "runtimes.json")])
    written = json.loads((tmp_path / "runtimes.json").read_text())
    there = {name for name, candidate in CANDIDATES.items() if candidate.there}
    assert {"torch CSR", "SciPy CSR", "torch compacted", "ONNX Runtime masked", "ONNX Runtime sparse initializers"} <= there
    assert {(row["candidate"], row["batch"]) for row in written["figures"]} == {(name, batch) for name in there for batch in (1, 32)}
    assert all(row["ms"] > 0 and row["low"] <= row["faster"] <= row["high"] for row in written["figures"]), "one has an error"
    assert all(row["faster"] == 1 for row in written["figures"] if row["candidate"].endswith(" dense"))
    weights, kept = 28 * 28 * 300 + 300 * 100 + 100 * 10, 13_310  # of 266,200
    (sizes,) = written["bytes"]
    assert sizes["bitmap"] == weights // 8 + 2 * kept + 2 * 410  # biases are dense
    last = 946  # kept in the last layer, whose 100 columns have one byte each; the others need two
    assert sizes["CSR"] == 4 * kept - last + 4 * (301 + 101 + 11) + 2 * 410
    assert sizes["dense"] > 2 * weights > sizes["compacted"] > sizes["compacted, bitmap"]
    assert (
        sizes["ONNX, fp32"] > 4 * weights > sizes["ONNX sparse, fp32"] > 11 * kept
    )  # 8 of index, 4 of value; a layer denser than half stays dense
    assert "| torch CSR |" in capsys.readouterr().out


@pytest.mark.parametrize("multiplier", MULTIPLIERS)
@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv2d(4, 8, 3, stride=2, padding=1), (2, 4, 9, 7)),
        (nn.Conv2d(3, 6, (3, 1), padding=(2, 0), dilation=(2, 1), bias=False), (2, 3, 8, 8)),
        (nn.Linear(8, 4), (2, 5, 8)),
        (nn.Linear(7, 3, bias=False), (2, 7)),
    ],
)
def test_a_sparse_layer_gives_what_the_layer_gives(multiplier, layer: nn.Module, shape: tuple[int, ...]) -> None:
    network = nn.Sequential(copied(layer))
    with torch.no_grad():
        network[0].weight[torch.rand_like(network[0].weight) < 0.7] = 0
        found = sparse_layers(network, ("0.weight",), multiplier)(inputs := torch.randn(shape))
        torch.testing.assert_close(found, network(inputs))


def test_a_layer_with_groups_and_one_of_another_kind_are_refused() -> None:
    for network in (nn.Sequential(nn.Conv2d(4, 4, 3, groups=2)), nn.Sequential(nn.ConvTranspose2d(2, 2, 3))):
        with pytest.raises(ValueError, match=r"^0\.weight: Conv\w+ is no linear layer and no convolution without groups$"):
            sparse_layers(network, ("0.weight",), torch_csr)


def test_candidates_run_convolutions_and_a_wrong_one_is_named(tmp_path: Path) -> None:
    ((_, _, mask),) = masks("resnet20", [0.1], [])
    images = torch.randn(2, 3, 32, 32)
    dense = calibrated(build("resnet20"), images)
    masked = copied(dense)
    for name, keep in mask.items():
        masked.get_parameter(name).data.mul_(keep)
    case = Case({"dense": dense, "masked": masked, "compacted": masked}, tuple(mask), images, tmp_path)
    found = {row["candidate"]: row for row in compare(case, QUICK)}
    assert found.keys() == {name for name, candidate in CANDIDATES.items() if candidate.there}
    assert not any("error" in row for row in found.values())
    wrong = copied(masked)
    wrong.get_parameter("head.bias").data += 1e-3 * masked(images).abs().max()
    (tmp_path / "wrong").mkdir()
    case = dataclasses.replace(case, networks=case.networks | {"compacted": wrong}, folder=tmp_path / "wrong")
    with pytest.raises(ValueError, match=r"^torch compacted is another function: outputs differ"):
        compare(case, QUICK)


def test_outputs_that_are_not_numbers_are_another_function() -> None:
    images = torch.ones(1, 2)
    check("torch dense", np.ones((1, 2), np.float32), nn.Identity(), images)
    with pytest.raises(ValueError, match="^torch dense is another function"):
        check("torch dense", np.full((1, 2), np.nan, np.float32), nn.Identity(), images)


def test_what_cannot_be_built_has_its_error_in_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(case: Case) -> None:
        raise RuntimeError("no such\nkernel")

    monkeypatch.setitem(CANDIDATES, "torch CSR", dataclasses.replace(CANDIDATES["torch CSR"], build=broken))
    network = build("lenet300-100").eval()
    case = Case(dict.fromkeys(("dense", "masked", "compacted"), network), (), torch.randn(1, 1, 28, 28), tmp_path)
    assert {"candidate": "torch CSR", "error": "RuntimeError: no such kernel"} in compare(case, QUICK)


def test_a_mask_without_a_path_is_a_row_with_the_error() -> None:
    ((_, _, mask),) = masks("lenet300-100", [0.1], [])
    times, sizes = measure("lenet300-100", {name: torch.zeros_like(keep) for name, keep in mask.items()}, [1], QUICK)
    assert sizes == [] and len(times) == 1 and "no path" in times[0]["error"]


def test_bytes_by_hand() -> None:
    network, small = nn.Linear(5, 3), nn.Linear(2, 2, bias=False)
    nn.init.zeros_(network.weight)
    with torch.no_grad():
        network.weight[0, 1] = network.weight[2, 0] = network.weight[2, 4] = 1.0
    found = bytes_by_way(network, small)
    assert found["dense"] == (15 + 3) * 2
    assert found["CSR"] == 3 * (2 + 1) + 4 * 4 + 3 * 2  # 3 values, a column each, 4 pointers; 3 biases
    assert found["bitmap"] == 2 + 3 * 2 + 3 * 2  # 15 bits
    assert (found["compacted"], found["compacted, bitmap"]) == (8, 1 + 8)
    assert found["gzip"] > 0


def test_break_even_lies_between_the_densities_by_their_logarithms() -> None:
    assert break_even({0.5: 0.5, 0.1: 2.0}) == "0.29"  # .5 * (.1 / .5) ** (1 / 3)
    assert break_even({0.1: 2.0, 0.5: 0.5, 0.01: 3.0}) == "0.29"
    assert break_even({0.5: 1.5, 0.1: 0.5, 0.01: 1.5}) == "0.032", "faster for good only below"
    assert break_even({0.5: 1.1, 0.1: 2.0}) == "> 0.5"
    assert break_even({0.5: 1.1, 0.1: 0.9}) == break_even({}) == "none"
    assert shown({"faster": 1.2, "low": 0.9, "high": 1.3, "n": 5}) == "1.20 ~"
    assert shown({"faster": 1.2, "low": 1.1, "high": 1.3, "n": 5}) == "1.20"
    assert shown({"faster": 0.2, "low": 0.2, "high": 0.2, "n": 1}) == "0.20 once"
