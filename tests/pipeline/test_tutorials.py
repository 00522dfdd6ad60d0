"""The first tutorial, as written: its commands in its order, in an empty home and another folder."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.pipeline.command_line import AUTOSPARSE, ROOT, environment

pytestmark = [pytest.mark.services, pytest.mark.slow, pytest.mark.timeout(900)]
PAGE = (ROOT / "docs/tutorials/first-run.md").read_text()


def test_the_first_run(tmp_path: Path) -> None:
    blocks = re.findall(r"```sh\n(.*?)```", PAGE, flags=re.DOTALL)
    install, *typed = blocks
    assert install.splitlines() == ["make install", ". .venv/bin/activate"]  # how these tests got their environment
    said = []
    for line in "".join(typed).splitlines():
        program, *words = shlex.split(line)
        assert program == "autosparse"
        here = environment(tmp_path / "home")
        done = subprocess.run([AUTOSPARSE, *words], cwd=tmp_path, env=here, capture_output=True, text=True, timeout=400)
        assert done.returncode == 0, f"{line}\n{done.stderr[-3000:]}"
        said.append(done.stdout)
    first, shown, _, again, second, inspected = said
    assert "test accuracy" in first and "test accuracy" in shown
    assert (tmp_path / "report-first.html").is_file()
    assert "[done]" not in again and "[cached] summary" in again
    assert "synflow" in second
    assert "multiply-adds of one example: 50,200 -> 5,020 (10.00%)" in inspected  # of a perceptron: a tenth of its weights
