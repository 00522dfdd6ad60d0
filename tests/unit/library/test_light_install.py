"""`pip install autosparse` brings the library alone: what needs the pipeline's packages says so in one line."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

PROJECT = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
MODULES = {"pillow": "PIL", "scikit-learn": "sklearn", "flask-wtf": "flask_wtf"}


def modules(extra: str) -> list[str]:
    """What the packages of an extra are imported as."""
    names = [requirement.split(">")[0].split("[")[0].strip() for requirement in EXTRAS[extra]]
    return [MODULES.get(name, name) for name in names]


BLOCKED = [*modules("pipeline"), *modules("export"), *modules("timm"), *modules("hf")]
WITHOUT = f"""
import sys

class Without:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        blocked = name.partition(".")[0] in {BLOCKED!r}
        return None if blocked else self.finder.find_spec(name, path, target)

sys.meta_path[:] = [Without(finder) for finder in sys.meta_path if hasattr(finder, "find_spec")]
"""


def light(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", WITHOUT + code], capture_output=True, text=True, timeout=120)


def test_prune_hold_and_compact_need_torch_alone(tmp_path: Path) -> None:
    done = light(f"""
import torch, autosparse
from torch import nn
network = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 3))
images = torch.rand(4, 1, 8, 8)
mask = autosparse.prune(network, [(images, torch.tensor([0, 1, 2, 0]))], method="snip", density=.2)
held = autosparse.hold(network, mask)
small = autosparse.compact(network, images, mask)
mask.save({str(tmp_path / "mask.safetensors")!r}, weights=network)
autosparse.export(small, images, {str(tmp_path / "small.safetensors")!r})
print(autosparse.Mask.load({str(tmp_path / "mask.safetensors")!r}, network).kept, held.violations())
""")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(round(0.2 * (72 + 288 * 3))), "0"]


@pytest.mark.parametrize("command", [("run",), ("prune", "m:f", "--density", ".1", "--data", "digits", "--out", "x")])
def test_a_command_of_the_pipeline_names_the_extra(command: tuple[str, ...]) -> None:
    done = light(f"sys.argv[1:] = {list(command)!r}\nfrom autosparse.flows.cli import main\nmain()")
    assert done.returncode == 2, done.stderr
    assert "pip install 'autosparse[pipeline]'" in done.stderr and len(done.stderr.strip().splitlines()) == 1


def test_help_and_version_need_nothing() -> None:
    done = light("sys.argv[1:] = ['--help']\nfrom autosparse.flows.cli import main\nmain()")
    assert done.returncode == 0 and "inspect" in done.stdout


def test_onnx_names_its_extra(tmp_path: Path) -> None:
    done = light(f"""
import torch, autosparse
try:
    autosparse.export(torch.nn.Linear(2, 2), torch.rand(1, 2), {str(tmp_path / "small.onnx")!r})
except autosparse.AutosparseError as error:
    print(error)
""")
    assert "pip install 'autosparse[export]'" in done.stdout, done.stderr
