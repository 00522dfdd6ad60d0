"""The Python of the library's page runs as it stands, from the first block to the last, and so do the commands of the networks' page."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "library.md"


@pytest.mark.filterwarnings("ignore::autosparse.MaskWarning")
def test_every_block_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    assert len(blocks) == 5
    names: dict[str, object] = {}
    for block in blocks:
        exec(block, names)
    assert {file.name for file in tmp_path.iterdir()} == {"small.safetensors", "mask.safetensors", "mask.weights.safetensors"}
    shown = capsys.readouterr().out
    assert "0.weight" in shown and "parameters" in shown


@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")  # images lie in the cache
def test_every_command_of_the_networks_page_is_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: Callable[..., CompletedProcess[str]]
) -> None:
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"```sh\n(.*?)```", (DOCS / "networks.md").read_text(), flags=re.DOTALL)
    commands = [shlex.split(line)[1:] for line in block.splitlines()]
    assert [words[0] for words in commands] == ["run", "run", "prune"]
    for words in commands:
        done = typed("validate" if words[0] == "run" else words[0], *words[1:])  # whose checks are all that a run does before it starts
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "pruned/network.json").is_file()
