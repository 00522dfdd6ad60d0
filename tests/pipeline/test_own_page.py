"""docs/own.md runs as it stands: the task in its Python block, the commands in its shell blocks."""

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from tests.pipeline.command_line import AUTOSPARSE, ROOT, environment

pytestmark = pytest.mark.services
PAGE = (ROOT / "docs/own.md").read_text()
BLOCKS = [block.splitlines() for block in re.findall(r"```sh\n(.*?)```", PAGE, flags=re.DOTALL)]


def digits_as_files(folder: Path) -> None:
    """The digits of scikit-learn as `folder/train/<class>/*.png` and `folder/test/<class>/*.png`."""
    digits: Any = load_digits()
    for row, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        place = folder / ("train" if row < 1437 else "test") / str(label)
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.rint(pixels * (255 / 16)).astype(np.uint8)).save(place / f"{row:04}.png")


def typed(folder: Path, line: str, **changed: str) -> str:
    """A line of the page in a folder; `changed` words take the place of others."""
    words = [changed.get(word, word) for word in shlex.split(line)[1:]]
    given = environment(folder / "home")
    done = subprocess.run([AUTOSPARSE, *words], cwd=folder, env=given, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, f"{line}\n{done.stderr[-3000:]}"
    return done.stdout


def test_the_page_has_these_commands() -> None:
    assert [[line.split()[1] for line in block] for block in BLOCKS] == [["init", "run", "report"], ["init", "run"], ["run"]]
    assert BLOCKS[2] == ["autosparse run --recipe examples.own_text:recipe"]  # tests/pipeline/test_own_tasks.py


def test_a_task_in_a_file_beside_one_is_planned(tmp_path: Path) -> None:
    (python,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    (tmp_path / "wine.py").write_text(python)
    planned = typed(tmp_path, BLOCKS[1][0])
    assert "142 training and 36 test examples, measured by error (% vol)" in planned
    assert "next: autosparse run --spec wine.yaml" in planned
    checked = typed(tmp_path, "autosparse validate --spec wine.yaml")
    assert "1 networks x 1 seeds" in checked and checked.strip() in planned, "the line that init printed"
    pruned = typed(
        tmp_path, "autosparse prune wine:build --data wine:Alcohol --method snip --density .1 --batches 2 --batch-size 32 --out pruned"
    )
    assert "density 0.1" in pruned and "0.weight" in typed(tmp_path, "autosparse inspect pruned")


def test_pictures_in_a_folder_prune_a_network(tmp_path: Path) -> None:
    for number in range(8):
        place = tmp_path / "pictures" / ("train" if number < 6 else "test") / "ab"[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), 30 * number, np.uint8)).save(place / f"{number}.png")
    command = "autosparse prune examples.own_network:build --data ./pictures --density .2 --out pruned --batch-size 4"
    assert "density 0.2" in typed(tmp_path, command)


@pytest.mark.slow
def test_the_task_of_the_page_runs(tmp_path: Path) -> None:
    (python,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    (tmp_path / "wine.py").write_text(python)
    for line in BLOCKS[1]:
        shown = typed(tmp_path, line)
    assert "test error (% vol), last epoch" in shown


@pytest.mark.slow
def test_the_three_commands_of_the_page_run(tmp_path: Path) -> None:
    digits_as_files(tmp_path / "pictures")
    name = re.findall(r"^(run-\w+): spec ", typed(tmp_path, BLOCKS[0][0]), re.MULTILINE)[0]
    ran = typed(tmp_path, BLOCKS[0][1])
    assert "test accuracy, last epoch" in ran and "pictures" in ran
    typed(tmp_path, BLOCKS[0][2], RUN=name)
    assert "synflow" in (tmp_path / f"report-{name}.html").read_text()
