"""The core works with torch and numpy alone: checked in a fresh process that refuses everything else."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

PROBE = """
import importlib, pkgutil, sys

class Refuse:
    banned = {"prefect", "ray", "mlflow", "pyarrow", "s3fs", "fsspec", "pydantic", "sklearn", "PIL", "matplotlib"}
    banned |= {"torchvision", "timm", "transformers"}
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in self.banned:
            raise ImportError(f"the core asked for {name}")

sys.meta_path.insert(0, Refuse())
from autosparse import models
names = [found.name for found in pkgutil.walk_packages(models.__path__, "autosparse.models.")]
for name in names:
    importlib.import_module(name)
print(len(names), models.__file__)
"""


def test_every_core_module_imports_without_services() -> None:
    done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 0, done.stderr
    count, file = done.stdout.split(maxsplit=1)
    assert int(count) > 20
    assert Path(file.strip()) == ROOT / "models/__init__.py"
