"""Masks as things: numbers on paper, files there and back, what is refused, and torch's own pruning and sparse tensors."""

import copy
import pickle
import warnings
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations
from torch.nn.utils import prune as torch_prune

import autosparse
from autosparse.library.holding import hold
from autosparse.library.mask import Change, Mask, MaskWarning
from autosparse.library.mask_file import About, initial_weights, weights_digest
from autosparse.models import seeding
from autosparse.models.errors import DataError, SpecError
from autosparse.storage.checkpoints import dump_tensors, load_tensors
from autosparse.storage.mask_files import dump_mask


def network(seed: int = 0) -> nn.Sequential:
    """Two channels of 8x8 in; a conv of 72 weights at 6x6 places, and a head of 12."""
    with seeding.scoped(seed, "test"):
        conv, out = nn.Conv2d(2, 4, 3), nn.Linear(4, 3)
    parts = {"conv": conv, "norm": nn.BatchNorm2d(4), "pool": nn.AdaptiveAvgPool2d(1), "flat": nn.Flatten(), "out": out}
    return nn.Sequential(OrderedDict(parts))


def half() -> dict[str, torch.Tensor]:
    """The conv keeps its first two of four channels whole (36 of 72 weights), the head one column of four (3 of 12)."""
    conv, out = torch.zeros(4, 2, 3, 3), torch.zeros(3, 4)
    conv[:2], out[:, 0] = 1, 1
    return {"conv.weight": conv, "out.weight": out}


def made(net: nn.Module | None = None) -> Mask:
    return Mask.of(half(), net or network(), method="snip", density=0.46, seed=3)


def test_numbers_on_paper() -> None:
    mask = made()
    assert (mask.kept, mask.total) == (39, 84)
    assert mask.density == 39 / 84
    assert mask.layer_densities() == {"conv.weight": 0.5, "out.weight": 0.25}
    assert mask.collapsed_layers() == []
    assert repr(mask) == "Mask(39 of 84 weights in 2 layers, density 0.4643, snip)"
    assert mask.parameters() == Change(84 + 4 + 8 + 3, 39 + 4 + 8 + 3)
    assert all(keep.dtype == torch.bool for keep in mask.values())


def test_multiply_adds_and_dead_channels() -> None:
    net, mask, example = network(), made(), torch.zeros(1, 2, 8, 8)
    assert mask.macs(net, example) == Change(36 * 72 + 12, 36 * 36 + 3)  # 6x6 places of 72 weights, one of 12
    assert mask.macs(nn.DataParallel(net), torch.zeros(2, 2, 8, 8)) == Change(2 * (36 * 72 + 12), 2 * (36 * 36 + 3))
    # channel 1 of the conv is whole, but the head reads channel 0 alone
    assert mask.effective(net, example).layer_densities() == {"conv.weight": 0.25, "out.weight": 0.25}
    assert mask.effective_density(net, example) == (18 + 3) / 84
    assert mask.dead_channels(net, example) == {"conv.weight": 3, "out.weight": 0}


def test_dead_channels_of_a_transpose_are_its_outputs() -> None:
    net = nn.Sequential(nn.ConvTranspose2d(4, 6, 1, groups=2, bias=False))
    keep = torch.zeros(4, 3, 1, 1)
    keep[0, 1] = keep[3, 0] = 1  # input 0 to output 1; input 3, of the second group, to output 3
    assert Mask.of({"0.weight": keep}).dead_channels(net, torch.zeros(1, 4, 2, 2)) == {"0.weight": 4}


def test_overlap_is_the_share_of_the_other() -> None:
    mask = Mask.of({"a": torch.tensor([1, 1, 0, 0])})
    assert mask.overlap({"a": torch.tensor([True, False, False, False])}) == 1
    assert mask.overlap(Mask.of({"a": torch.tensor([1, 0, 1, 1])})) == pytest.approx(1 / 3)
    with pytest.raises(SpecError, match="^other: 'a, b' is not allowed; allowed: a mask with the same names and shapes$"):
        mask.overlap({"b": torch.ones(4, dtype=torch.bool)})


def test_the_summary_names_what_stays_dense() -> None:
    mask = Mask.of({"conv.weight": half()["conv.weight"]}, network())
    text = mask.summary()
    assert text.splitlines() == [
        "layer        shape    kept  density",
        "conv.weight  4x2x3x3    36      0.5",
        "all                     36      0.5",
        "outside the mask: 27 of 99 parameters (27.27%) stay dense",
        "  out.weight  3x4  12",
        "  4 vectors (biases, norms): 15",
    ]
    assert repr(text) == str(text)  # a prompt and a notebook show lines
    with_macs = mask.summary(network(), torch.zeros(5, 2, 8, 8)).splitlines()
    assert with_macs[1].split() == ["conv.weight", "4x2x3x3", "36", "0.5", "1,296", "2,592"]
    assert with_macs[-1] == "multiply-adds of one example: 2,604 -> 1,308 (50.23%)"
    assert len(Mask.of(half()).summary().splitlines()) == 4  # without a network nothing is known of the rest


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float32, torch.bfloat16])
def test_zeros_and_ones_of_any_dtype(dtype: torch.dtype) -> None:
    assert Mask.of({name: keep.to(dtype) for name, keep in half().items()}).checksum == Mask.of(half()).checksum


@pytest.mark.parametrize("odd", [0.5, 2.0, -1.0, float("nan")])
def test_other_values_are_refused(odd: float) -> None:
    with pytest.raises(SpecError, match=r"^mask: a: .* is not allowed; allowed: 0 and 1$"):
        Mask.of({"a": torch.tensor([1.0, odd, 0.0])})


def test_what_is_no_mask_is_refused() -> None:
    with pytest.raises(SpecError, match="^mask: a: 'list' is not allowed; allowed: a tensor of zeros and ones$"):
        Mask.of({"a": [1, 0]})  # type: ignore[dict-item]
    with pytest.raises(SpecError, match="^mask: a: 'torch.float32' is not allowed; allowed: a bool tensor; Mask.of takes"):
        Mask({"a": torch.ones(2)})
    with pytest.raises(SpecError, match=r"^network: None is not allowed; allowed: the network, which this mask was made without$"):
        Mask.of(half()).parameters()


def test_copies_and_pickles_are_masks() -> None:
    mask = made()
    for twin in (copy.copy(mask), copy.deepcopy(mask), pickle.loads(pickle.dumps(mask)), mask.to("cpu")):
        assert type(twin) is Mask and twin.about == mask.about and twin.checksum == mask.checksum
    deep = copy.deepcopy(mask)
    deep["conv.weight"].fill_(True)
    assert mask.density == 39 / 84


def test_a_file_holds_all_of_it(tmp_path: Path) -> None:
    net, mask, path = network(), made(), tmp_path / "mask.safetensors"
    mask.save(path, weights=net)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = Mask.load(path, net)
    assert found.about == mask.about and found.checksum == mask.checksum and list(found) == list(mask)
    assert found.about == About(
        method="snip",
        density=0.46,
        seed=3,
        network="Sequential",
        weights=mask.about.weights,
        outside={"conv.bias": (4,), "norm.weight": (4,), "norm.bias": (4,), "out.bias": (3,)},
        versions={"autosparse": autosparse.__version__, "torch": str(torch.__version__)},
    )
    weights = initial_weights(path)
    assert all(torch.equal(value, weights[name]) for name, value in net.state_dict().items()) and len(weights) == len(net.state_dict())
    assert all(torch.equal(value, mask[name]) for name, value in load_tensors(path.read_bytes()).items())  # as any program reads it


def test_the_files_of_prune_and_of_runs_are_read(tmp_path: Path) -> None:
    keep = {name: one.bool() for name, one in half().items()}
    pruned, run = tmp_path / "pruned.safetensors", tmp_path / "mask-0.05.safetensors"
    pruned.write_bytes(dump_tensors(keep, {"density": "0.464285714", "scorer": "models:/scorer@champion", "network": "mine:build"}))
    run.write_bytes(dump_mask(keep))
    first = Mask.load(pruned)
    assert (first.about.method, first.about.network, first.about.density) == ("models:/scorer@champion", "mine:build", 0.464285714)
    assert first.checksum == Mask.load(run, network()).checksum == made().checksum
    run.write_bytes(dump_mask({"conv.weight": keep["conv.weight"]}))
    with pytest.warns(MaskWarning, match=r"the mask says nothing of out\.weight; they stay dense$"):
        Mask.load(run, network())


def test_what_differs_is_said_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "mask.safetensors"
    made().save(path)
    other = network()
    other.conv = nn.Conv2d(2, 5, 3)
    del other.out
    with pytest.raises(SpecError) as refused:
        Mask.load(path, other)
    assert str(refused.value) == (
        f"{path}: a mask of another network is not allowed; the network has no out.weight; "
        "shapes differ: conv.weight (4, 2, 3, 3) against (5, 2, 3, 3)"
    )
    larger = network()
    larger.more = nn.Linear(3, 3)
    with pytest.raises(SpecError, match=r"a mask of another network is not allowed; allowed: one that knows of more\.weight, more\.bias$"):
        Mask.load(path, larger)
    many = {f"{index}.weight": torch.ones(1) for index in range(6)}
    with pytest.raises(SpecError, match=r"no 0\.weight, 1\.weight, 2\.weight and 3 more$"):
        Mask.of(many, network())


def test_other_initial_weights_are_a_warning(tmp_path: Path) -> None:
    net, path = network(), tmp_path / "mask.safetensors"
    made(net).save(path)
    with pytest.warns(MaskWarning, match=r"the network has other weights than the mask was made for; initial_weights\(path\)"):
        Mask.load(path, network(seed=1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mask = Mask.load(path, nn.DataParallel(net))
        hold(net, mask)  # the masked weights are gone: it is still the same network
        Mask.load(path, net)
        with torch.no_grad():
            net.conv.weight[0] += 1  # and trained under the mask
        Mask.load(path, net)


def test_only_the_initial_weights_are_saved_beside_a_mask(tmp_path: Path) -> None:
    net, path = network(), tmp_path / "mask.safetensors"
    mask = made(net)
    with pytest.raises(SpecError, match=r"^weights: 'digest [0-9a-f]{12}' is not allowed; allowed: the weights that the mask was made for"):
        mask.save(path, weights=network(seed=1))
    with pytest.raises(SpecError, match=r"^weights: 'without out\.weight, out\.bias' is not allowed"):
        mask.save(path, weights={name: value for name, value in net.state_dict().items() if "out" not in name})
    assert list(tmp_path.iterdir()) == []
    hold(net, mask)
    mask.save(path, weights=net.state_dict())  # held, but not trained
    assert {file.name for file in tmp_path.iterdir()} == {"mask.safetensors", "mask.weights.safetensors"}


def test_files_that_are_no_mask(tmp_path: Path) -> None:
    for name, data in {"text": b"not a mask", "weights": dump_tensors({"a": torch.ones(2) / 3}), "empty": b""}.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(DataError, match=rf"^{tmp_path / name}: not "):
            Mask.load(tmp_path / name)
    with pytest.raises(DataError, match="not found$"):
        Mask.load(tmp_path / "nowhere")
    with pytest.raises(DataError, match="nowhere.weights.safetensors: not found$"):
        initial_weights(tmp_path / "nowhere")
    with pytest.raises(DataError, match="not found$"):
        made().save(tmp_path / "no" / "folder")


def test_the_digest_knows_types_names_and_values_but_neither_layout_nor_masked_weights() -> None:
    weights = {"a": torch.arange(16.0).reshape(1, 4, 2, 2), "b": torch.ones(2)}
    mask = {"b": torch.tensor([True, False])}
    same = {"b": torch.tensor([1.0, 7.0]), "a": weights["a"].to(memory_format=torch.channels_last)}
    assert weights_digest(weights, mask) == weights_digest(same, mask)
    for other in ({"b": torch.tensor([2.0, 1.0])}, {"b": torch.ones(2, dtype=torch.float64)}, {"c": torch.ones(2)}):
        assert weights_digest({**weights, **other}, mask) != weights_digest(weights, mask)


def test_to_torch_prune_and_back() -> None:
    net, mask = network(), made()
    dense = net.conv.weight.detach().clone()
    mask.to_torch_prune(nn.DataParallel(net))
    assert torch.equal(net.conv.weight, dense * mask["conv.weight"])
    as_it_is = Mask.from_torch_prune(net)
    assert list(as_it_is) == ["conv.weight_orig", "out.weight_orig"] and as_it_is.kept == mask.kept
    with hold(net, as_it_is) as held:
        assert held.violations() == 0
    again = Mask.from_torch_prune(net, remove=True)
    assert again.checksum == mask.checksum and again.about.method == "torch.nn.utils.prune"
    assert "conv.weight" in net.state_dict() and not torch_prune.is_pruned(net)
    with pytest.raises(SpecError, match="^model: 'Sequential' is not allowed; allowed: a network that torch.nn.utils.prune has pruned$"):
        Mask.from_torch_prune(net)


def test_a_reparametrized_weight_is_not_for_torch_prune() -> None:
    net = network()
    parametrizations.weight_norm(net.conv)
    mask = Mask.of({"out.weight": torch.ones(3, 4), "conv.parametrizations.weight.original1": torch.ones(4, 2, 3, 3)})
    with pytest.raises(SpecError, match=r"^mask: 'conv\.parametrizations\.weight\.original1' is not allowed; allowed: a plain weight"):
        mask.to_torch_prune(net)
    assert not torch_prune.is_pruned(net)


@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr, torch.sparse_csc])
@pytest.mark.filterwarnings("ignore:Sparse CS. tensor support is in beta:UserWarning")  # torch's own
def test_sparse_weights_hold_exactly_the_kept_ones(layout: torch.layout) -> None:
    net, mask = network(), made()
    with torch.no_grad():
        net.conv.weight[0, 0, 0, 0] = 0  # kept, and zero
    found = mask.sparse(net, layout)
    assert {name: tuple(one.shape) for name, one in found.items()} == {"conv.weight": (4, 18), "out.weight": (3, 4)}
    assert all(one.layout is layout and one.values().numel() == int(mask[name].sum()) for name, one in found.items())
    assert torch.equal(found["conv.weight"].to_dense(), (net.conv.weight * mask["conv.weight"]).flatten(1))


def test_other_layouts_are_refused() -> None:
    with pytest.raises(SpecError, match="^layout: torch.sparse_bsr is not allowed; allowed: torch.sparse_coo, torch.sparse_csr, torch"):
        made().sparse(network(), torch.sparse_bsr)
