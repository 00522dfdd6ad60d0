"""The Python of the library's page runs as it stands, from the first block to the last."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs/library.md"


@pytest.mark.filterwarnings("ignore::autosparse.MaskWarning")
def test_every_block_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    assert len(blocks) == 4
    names: dict[str, object] = {}
    for block in blocks:
        exec(block, names)
    assert {file.name for file in tmp_path.iterdir()} == {"small.safetensors", "mask.safetensors", "mask.weights.safetensors"}
    shown = capsys.readouterr().out
    assert "0.weight" in shown and "parameters" in shown
