"""The examples run as they stand, and say that no pruned weight came back."""

import ast
import json
import runpy
from pathlib import Path
from typing import Any

import pytest

from autosparse.models import seeding
from autosparse.models.networks.torchvision_guard import import_torchvision

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In a folder of its own, without a model hub; timm and transformers import torchvision."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    import_torchvision()


@pytest.mark.parametrize(("name", "least"), [("timm_vit", 0.8), ("hugging_face_trainer", 0.9), ("segmentation", 0.75)])
def test_an_example(name: str, least: float, capsys: pytest.CaptureFixture[str]) -> None:
    with seeding.scoped(0, "example"):
        found = runpy.run_path(str(EXAMPLES / f"{name}.py"))
    assert found["held"].violations() == 0
    assert "0 pruned weights came back" in capsys.readouterr().out
    assert float(found["overlap"] if "overlap" in found else found["right"]) > least
    if "small" in found:
        assert found["after"] < found["before"] and found["difference"] < 1e-4


def test_the_notebook() -> None:
    cells = json.loads((EXAMPLES / "prune_your_network.ipynb").read_text())["cells"]
    names: dict[str, Any] = {}
    shown = []
    with seeding.scoped(0, "example"):
        for cell in cells:
            if cell["cell_type"] == "code":
                assert not cell["outputs"] and cell["execution_count"] is None  # as it is committed
                shown.append(_run("".join(cell["source"]), names))
    accuracy, violations = shown[2]
    before, after, difference = shown[3]
    assert str(shown[1]).startswith("layer") and repr(shown[4]).startswith("Mask(")
    assert accuracy > 0.8 and violations == 0 and after < before / 2 and difference < 1e-4


def _run(source: str, names: dict[str, Any]) -> Any:
    """A cell: what its last expression is, None without one."""
    body = ast.parse(source).body
    last = body.pop() if isinstance(body[-1], ast.Expr) else None
    exec(compile(ast.Module(body, []), "cell", "exec"), names)
    return eval(compile(ast.Expression(last.value), "cell", "eval"), names) if isinstance(last, ast.Expr) else None
