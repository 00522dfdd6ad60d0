import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save
from torch import Tensor, nn

from autosparse.models.errors import DataError
from autosparse.storage.checkpoints import dump_tensors, load_tensors, load_training_state, read_metadata, save_training_state


def same(left: Tensor, right: Tensor) -> bool:
    """Bit for bit, so that -0.0 and NaN count."""
    return left.dtype == right.dtype and left.shape == right.shape and left.cpu().numpy().tobytes() == right.cpu().numpy().tobytes()


def test_round_trip_keeps_order_types_and_bits():
    tensors = {
        "z": torch.tensor([-0.0, float("nan"), 1e-45]),
        "a": torch.tensor(7),
        "channels_last": torch.arange(24.0).reshape(1, 2, 3, 4).contiguous(memory_format=torch.channels_last),
        "transposed": torch.arange(6).reshape(2, 3).t(),
        "flags": torch.tensor([True, False]),
        "empty": torch.zeros(0, 3, dtype=torch.float64),
    }
    back = load_tensors(dump_tensors(tensors))
    assert list(back) == list(tensors)
    assert all(same(back[name], tensor) for name, tensor in tensors.items())


def test_tied_and_trainable_tensors_are_stored_as_plain_copies():
    weight = nn.Parameter(torch.ones(3))
    data = dump_tensors({"a": weight, "b": weight, "part": weight[1:]})
    back = load_tensors(data)
    back["a"][0] = 5
    assert back["b"].tolist() == [1, 1, 1] and back["part"].tolist() == [1, 1] and not back["a"].requires_grad


def test_equal_input_gives_equal_bytes_and_metadata_comes_back():
    metadata = {"step": "3", "network": "resnet8", "über": "ja\n"}
    data = dump_tensors({"a": torch.ones(2)}, metadata)
    assert data == dump_tensors({"a": torch.ones(2)}, metadata)
    assert read_metadata(data) == metadata and read_metadata(dump_tensors({"a": torch.ones(2)})) == {}


def test_files_of_other_programs_are_read():
    data = save({"weight": torch.arange(3.0)}, {"format": "pt"})
    assert load_tensors(data)["weight"].tolist() == [0, 1, 2] and read_metadata(data) == {}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x02\0\0\0\0\0\0\0[]",
        b"\x80\x04pickle",
        dump_tensors({"a": torch.ones(9)})[:-1],
        save({"a": torch.ones(1)}, {"autosparse": "7"}),
    ],
    ids=["empty", "no object", "pickle", "cut", "foreign header"],
)
def test_corrupt_bytes_are_a_data_error_that_names_the_file(data: bytes):
    with pytest.raises(DataError, match=r"^weights.safetensors: not an intact safetensors file [^\n]+$"):
        load_tensors(data, source="weights.safetensors")


def test_every_changed_byte_of_a_file_is_noticed():
    data = dump_tensors({"a": torch.arange(5.0), "flag": torch.tensor(True), "none": torch.zeros(0, 3)}, {"made": "here"})
    start = 8 + int.from_bytes(data[:8], "little")
    assert len(data) > start + 20
    for place in range(start, len(data)):
        spoiled = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        with pytest.raises(DataError, match="^weights: not an intact safetensors file .its content has not the SHA-256"):
            load_tensors(spoiled, source="weights")
    with pytest.raises(DataError, match="SHA-256"):
        load_tensors(data.replace(b"here", b"hare"))


def trained(steps: int, momentum: float = 0.9) -> tuple[nn.Module, torch.optim.SGD]:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(18, 2))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=momentum, nesterov=momentum > 0, weight_decay=1e-3)
    for _ in range(steps):
        step(network, optimizer, torch.randn(4, 1, 5, 5, generator=generator))
    return network, optimizer


def step(network: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor) -> None:
    optimizer.zero_grad()
    network(images).square().sum().backward()
    optimizer.step()


def test_a_training_continues_bit_exact_from_its_stored_state(tmp_path: Path):
    network, optimizer = trained(steps=3)
    progress = {"step": 3, "lr": 0.1 + 0.2, "history": [1e-320, -0.0], "best": None}
    save_training_state(tmp_path / "state", network.state_dict(), optimizer.state_dict(), progress)
    state = load_training_state(tmp_path / "state")
    resumed, resumed_optimizer = trained(steps=0)
    resumed.load_state_dict(state.network)
    resumed_optimizer.load_state_dict(state.optimizer)
    assert state.progress == progress and state.progress["lr"] == 0.30000000000000004
    images = torch.randn(4, 1, 5, 5, generator=torch.Generator().manual_seed(9))
    step(network, optimizer, images)
    step(resumed, resumed_optimizer, images)
    assert all(same(resumed.state_dict()[name], tensor) for name, tensor in network.state_dict().items())
    assert same(resumed_optimizer.state_dict()["state"][0]["momentum_buffer"], optimizer.state_dict()["state"][0]["momentum_buffer"])


def test_missing_momentum_nested_and_zero_dimensional_tensors_survive(tmp_path: Path):
    _, optimizer = trained(steps=2, momentum=0.0)
    plain = optimizer.state_dict()
    assert plain["state"] == {} or plain["state"][0]["momentum_buffer"] is None
    handmade = {
        "state": {0: {"momentum_buffer": None, "step": torch.tensor(2.0)}, 7: {"momentum_buffer": torch.ones(2, 3).t()}},
        "param_groups": [{"lr": torch.tensor(0.1), "betas": (0.9, 0.99), "params": [0, 7], "foreach": None}],
    }
    for index, state in enumerate((plain, handmade)):
        save_training_state(tmp_path / str(index), {"w": torch.ones(1)}, state, {})
    assert load_training_state(tmp_path / "0").optimizer == plain
    back = load_training_state(tmp_path / "1").optimizer
    assert back["state"][0]["momentum_buffer"] is None and same(back["state"][0]["step"], torch.tensor(2.0))
    assert list(back["state"]) == [0, 7] and same(back["state"][7]["momentum_buffer"], torch.ones(3, 2))
    group = back["param_groups"][0]
    assert same(group["lr"], torch.tensor(0.1)) and group["betas"] == [0.9, 0.99] and group["params"] == [0, 7] and group["foreach"] is None


def written(directory: Path) -> Path:
    network, optimizer = trained(steps=1)
    save_training_state(directory, network.state_dict(), optimizer.state_dict(), {"step": 1})
    return directory


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json"])
def test_a_missing_cut_or_altered_file_is_named(tmp_path: Path, name: str):
    directory = written(tmp_path)
    whole = (directory / name).read_bytes()
    for broken in (whole[:-1], b"", whole[:-3] + b"?" + whole[-2:]):
        (directory / name).write_bytes(broken)
        with pytest.raises(DataError, match=rf"^{directory / name}: [^\n]+$"):
            load_training_state(directory)
    (directory / name).unlink()
    with pytest.raises(DataError, match=rf"^{directory / name}: cannot be read"):
        load_training_state(directory)


@pytest.mark.parametrize("change", [{"optimizer": {"state": {"0": {"__tensor__": "/nowhere"}}}}, {"sha256": {}}, {"optimizer": []}])
def test_a_state_that_does_not_fit_its_tensors_is_refused(tmp_path: Path, change: dict[str, object]):
    path = written(tmp_path) / "state.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(DataError, match=rf"^{path}: not a training state"):
        load_training_state(tmp_path)
