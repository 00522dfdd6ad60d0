"""The README holds: its Python runs, its figures stand in the results, its links lead somewhere."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
FIGURE = re.compile(r"[+-]\d*\.\d")


@pytest.mark.filterwarnings("ignore::autosparse.MaskWarning")
def test_its_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    generator = torch.Generator().manual_seed(0)
    example = torch.randn(4, 1, 8, 8, generator=generator)
    model = nn.Sequential(nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(256, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    names = {"model": model, "batches": [(example, torch.zeros(4, dtype=torch.long))], "example": example, "optimizer": optimizer}
    exec(block, names)
    mask: dict[str, torch.Tensor] = names["mask"]  # type: ignore[assignment]
    assert names["mask"].density == pytest.approx(0.05, abs=0.001)  # type: ignore[attr-defined]
    assert all(bool((parameter[~mask[name]] == 0).all()) for name, parameter in model.named_parameters() if name in mask)
    assert (tmp_path / "small.onnx").is_file()


def test_its_figures_stand_in_the_results() -> None:
    measured = [*(ROOT / "docs/results.md").read_text().splitlines(), *(ROOT / "docs/results-archive.md").read_text().splitlines()]
    claims = [FIGURE.findall(row) for row in README.splitlines() if len(FIGURE.findall(row)) == 3]
    assert len(claims) == 6
    for claim in claims:
        pattern = ".*".join(rf"(?<![\d.]){re.escape(figure)}(?!\d)" for figure in claim)
        assert any(re.search(pattern, line) for line in measured), claim


def test_its_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", README)
    assert len(links) > 20
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_it_is_two_screens() -> None:
    assert len(README.split()) < 900
