"""Files that other programs run: what is in them, what is refused, and that nothing is left of what failed."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from autosparse.library import export as exporting
from autosparse.library.export import Exported, export
from autosparse.models.errors import SpecError
from autosparse.storage.checkpoints import load_tensors, read_metadata


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2)).train()


IMAGE = torch.randn(1, 1, 4, 4, generator=torch.Generator().manual_seed(0))


class Named(nn.Module):
    """Takes words and a weight for each, in this order, and returns a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.out = nn.Embedding(5, 4), nn.Linear(4, 2)

    def forward(self, words: Tensor, weights: Tensor) -> dict[str, Tensor]:
        return {"logits": self.out((self.embed(words) * weights[..., None]).sum(1))}


def test_onnx_takes_batches_of_any_size(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    net = network()
    written = export(net, IMAGE, tmp_path / "small.onnx")
    assert written == Exported(tmp_path / "small.onnx", (tmp_path / "small.onnx").stat().st_size, any_batch=True)
    assert [file.name for file in tmp_path.iterdir()] == ["small.onnx"] and net.training
    session = onnxruntime.InferenceSession(str(tmp_path / "small.onnx"))
    images = torch.randn(5, 1, 4, 4)
    (found,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), net.eval()(images).detach())


@pytest.mark.parametrize("ending", ["onnx", "pt2"])
def test_inputs_by_name_may_stand_in_any_order(tmp_path: Path, ending: str) -> None:
    example = {"weights": torch.rand(2, 3), "words": torch.tensor([[0, 1, 2], [3, 4, 0]])}
    assert export(Named(), example, tmp_path / f"named.{ending}").any_batch
    assert export(Named(), (example["words"], example["weights"]), tmp_path / f"placed.{ending}").any_batch


def test_a_program_gives_the_same_outputs(tmp_path: Path) -> None:
    net = network().eval()
    assert export(net, IMAGE, str(tmp_path / "small.pt2")).any_batch
    loaded = torch.export.load(tmp_path / "small.pt2").module()
    images = torch.randn(3, 1, 4, 4)
    torch.testing.assert_close(loaded(images), net(images))


def test_weights_come_with_facts(tmp_path: Path) -> None:
    net = network()
    export(net, IMAGE, tmp_path / "small.safetensors")
    data = (tmp_path / "small.safetensors").read_bytes()
    read = load_tensors(data)
    assert list(read) == list(net.state_dict()) and all(torch.equal(read[name], tensor) for name, tensor in net.state_dict().items())
    facts = read_metadata(data)
    assert (facts["network"], facts["torch"]) == ("torch.nn.modules.container.Sequential", torch.__version__)


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("small.pth", "a file that ends in .onnx, .pt2 or .safetensors"),
        ("small", "a file that ends in .onnx, .pt2 or .safetensors"),
        ("none/small.onnx", r"a file in a folder that exists \(.*none does not\)"),
        ("folder.onnx", "a file that can be written"),
    ],
)
def test_a_path_that_will_not_do_is_refused_before_the_work(tmp_path: Path, name: str, allowed: str) -> None:
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(SpecError, match=rf"^path: .*{name}' is not allowed; allowed: {allowed}$"):
        export(nn.Module(), IMAGE, tmp_path / name)  # which cannot run


def test_a_missing_package_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "find_spec", lambda name: None if name == "onnxscript" else name)
    with pytest.raises(SpecError, match=r"^export: ONNX needs onnxscript; install autosparse\[export\] \(pip install 'auto[^\n]*$"):
        export(nn.Module(), IMAGE, tmp_path / "small.onnx")


def test_an_example_that_does_not_run_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"^example: \(1, 2, 4, 4\) is not allowed; allowed: one input of the network \(RuntimeError: "):
        export(network(), torch.ones(1, 2, 4, 4), tmp_path / "small.pt2")
    assert not list(tmp_path.iterdir())


class Deciding(nn.Module):
    """Looks at its numbers, which an exporter cannot follow."""

    def forward(self, values: Tensor) -> Tensor:
        return values if float(values.sum()) > 0 else -values


def test_what_cannot_be_exported_is_one_line_and_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"^export: Deciding cannot be exported to \.pt2 \([^\n]*\)$"):
        export(Deciding(), torch.ones(1, 2), tmp_path / "small.pt2")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("ending", ["pt2", "onnx"])
def test_a_file_that_is_another_function_is_not_left(tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / f"small.{ending}").write_text("the one before")
    honest = exporting._program

    def of_another(network: nn.Module, example: Any) -> tuple[Any, bool]:
        return honest(nn.Sequential(nn.Flatten(), nn.Linear(16, 2)), example)

    monkeypatch.setattr(exporting, "_program", of_another)
    with pytest.raises(SpecError, match="^export: the file would not be the same function as Sequential .outputs differ by [^\n]*$"):
        export(network(), IMAGE, tmp_path / f"small.{ending}")
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [(f"small.{ending}", "the one before")]
