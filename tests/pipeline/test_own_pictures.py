"""From a folder of pictures to a report page in three commands, as somebody does who has just installed autosparse."""

import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from tests.pipeline.command_line import AUTOSPARSE, environment

pytestmark = [pytest.mark.services, pytest.mark.slow]


def digits_as_files(folder: Path) -> None:
    """The digits of scikit-learn as `folder/train/<class>/*.png` and `folder/test/<class>/*.png`."""
    digits: Any = load_digits()
    for row, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        place = folder / ("train" if row < 1437 else "test") / str(label)
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.rint(pixels * (255 / 16)).astype(np.uint8)).save(place / f"{row:04}.png")


def test_three_commands_lead_to_a_report_page(tmp_path: Path) -> None:
    folder = tmp_path / "project"
    digits_as_files(folder / "pictures")

    def type_(*arguments: str) -> str:
        given = environment(tmp_path / "home")
        done = subprocess.run([AUTOSPARSE, *arguments], cwd=folder, env=given, capture_output=True, text=True, timeout=280)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    planned = type_("init", "--network", "resnet8", "--data", "./pictures", "--budget", "2m")
    name = re.search(r"^(run-\w+): spec ", planned, re.MULTILINE)
    assert name and "next: autosparse run --spec autosparse.yaml" in planned
    ran = type_("run", "--spec", "autosparse.yaml")
    assert "test accuracy, last epoch" in ran and "pictures" in ran
    assert name[1] in type_("show", name[1])
    type_("report", name[1])
    assert "synflow" in (folder / f"report-{name[1]}.html").read_text()
