"""The package lives beside other people's code: from a folder with packages of the same names, as a wheel and as an editable install."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster as Nodes

from autosparse.tasks.services.commands import PORTS
from autosparse.tasks.services.processes import free_port
from autosparse.tasks.settings import ONE_MACHINE_RAY
from tests.pipeline.command_line import ROOT, environment

NAMES = ("models", "tasks", "flows", "storage", "tests", "autosparse_x")
SOURCES = ("autosparse", "flows", "tasks", "models", "storage", "pyproject.toml", "prefect.yaml", "README.md", "LICENSE")
PROGRAMS = ("prefect", "ray", "mlflow")
NET = """import models.parts
from torch import nn


def build(image_shape, num_classes):
    channels, height, width = image_shape
    hidden = models.parts.hidden()
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * height * width, hidden), nn.ReLU(), nn.Linear(hidden, num_classes))
"""
TARGET = '[{"network": {"name": "models.net:build", "init": "own"}}]'
SMALL = (
    *("run", "--recipe", "smoke", "--name", "mine", "--set", f"fanout.targets={TARGET}"),
    *("--set", "irp.rounds=1", "--set", "fanout.methods=[scorer]", "--set", "fanout.dense=false"),
)


def hostile(folder: Path, *, packages: bool) -> Path:
    """A person's folder: packages with our folders' names, which end whoever imports them; a network of their own in `models`."""
    for name in NAMES:
        (folder / name).mkdir(parents=True)
        if packages:
            guard = "" if name == "models" else f"raise RuntimeError('{name} of the person was imported')\n"
            (folder / name / "__init__.py").write_text(guard)
    (folder / "models/specs.py").write_text("raise RuntimeError('models.specs of the person was imported')\n")
    (folder / "models/parts.py").write_text("def hidden():\n    return 20\n")
    (folder / "models/net.py").write_text(NET)
    return folder


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `autosparse` of an environment that has the built wheel, and the libraries of the one that runs the tests."""
    place = tmp_path_factory.mktemp("wheel")
    source = place / "source"  # a build leaves files beside what it builds
    source.mkdir()
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    built = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(place), str(source)]
    subprocess.run(built, check=True, cwd=place, timeout=200)
    (found,) = place.glob("autosparse-*.whl")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place / "venv")], check=True, timeout=100)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(place / "venv")}))
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")  # its own .pth files, and so our editable install, stay out
    python = str(place / "venv/bin/python")
    subprocess.run([*pip, "--python", python, "install", "--no-deps", str(found)], check=True, timeout=100)
    for name in PROGRAMS:
        here = Path(sys.executable).with_name(name).read_text().partition("\n")[2]
        program = place / "venv/bin" / name
        program.write_text(f"#!{python}\n{here}")
        program.chmod(0o755)
    return place / "venv/bin/autosparse"


@pytest.fixture
def installed(request: pytest.FixtureRequest) -> Path:
    """The command of the wheel or of the editable install."""
    return request.getfixturevalue("wheel") if request.param == "wheel" else Path(sys.executable).with_name("autosparse")


def call(
    program: Path, folder: Path, *arguments: str, path: str | None = None, home: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """A command called from a person's folder."""
    given = {key: value for key, value in environment(home or folder / "home").items() if key != "PYTHONPATH"}
    given |= {"PYTHONPATH": path} if path else {}
    return subprocess.run([str(program), *arguments], capture_output=True, text=True, timeout=280, cwd=folder, env=given)


@pytest.mark.parametrize("installed", ["wheel", "editable"], indirect=True)
@pytest.mark.parametrize("packages", [True, False], ids=["packages", "folders"])
@pytest.mark.parametrize("path", [None, "."], ids=["plain", "PYTHONPATH"])
def test_commands_answer_from_a_hostile_folder(installed: Path, packages: bool, path: str | None, tmp_path: Path) -> None:
    folder = hostile(tmp_path / "project", packages=packages)
    shown = call(installed, folder, "--version", path=path)
    assert (shown.returncode, shown.stderr) == (0, "") and shown.stdout.strip() == "0.2.0"
    checked = call(installed, folder, "validate", "--recipe", "smoke", "--set", f"fanout.targets={TARGET}", path=path)
    assert checked.returncode == 0 and "3 arms on 1 targets" in checked.stdout, checked.stderr
    missing = call(installed, folder, "show", "nothing", path=path)
    assert missing.returncode == 2 and missing.stderr.startswith("error: run: 'nothing' is not in"), missing.stderr


@pytest.mark.ray
@pytest.mark.parametrize("installed", ["wheel", pytest.param("editable", marks=pytest.mark.slow)], indirect=True)
def test_a_run_and_a_prune_take_the_network_of_the_person(installed: Path, tmp_path: Path) -> None:
    path = "." if "wheel" in str(installed) else None
    folder, home = hostile(tmp_path / "project", packages=bool(path)), tmp_path / "home"
    ran = call(installed, folder, *SMALL, path=path, home=home)
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert "models-net-build-own" in ran.stdout
    for command in (("show", "mine"), ("report", "mine")):
        shown = call(installed, folder, *command, path=path, home=home)
        assert shown.returncode == 0, shown.stderr
    assert (folder / "report-mine.html").is_file()
    scorer = str(home / "storage/runs/mine/scorer")
    asked = ("--scorer", scorer, "--density", ".1", "--data", "digits", "--out", "mask.safetensors")
    pruned = call(installed, folder, "prune", "models.net:build", *asked, path=path, home=home)
    assert pruned.returncode == 0, pruned.stderr
    assert (folder / "mask.safetensors").is_file() and "20x64" in pruned.stdout
    assert os.listdir(home / "storage/runs") == ["mine"]


IMPORT = """
import json, sys
from pathlib import Path

import ray

from autosparse.tasks import settings
from autosparse.tasks.cluster.connection import connected


@ray.remote(num_cpus=1)
def where():
    import models.net

    return models.net.__file__


here = settings.load()
settings.export(here)
with connected(here, Path(sys.argv[1])) as cluster:
    print(json.dumps(cluster.result(where.remote())))
"""


@pytest.mark.ray
@pytest.mark.slow
def test_a_folder_of_ones_own_travels_to_the_nodes_of_a_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two nodes are simulated by one machine: that the module was sent shows in where it was imported from."""
    folder, elsewhere = hostile(tmp_path / "project", packages=True), tmp_path / "elsewhere"
    elsewhere.mkdir()
    (folder / ".gitignore").write_text("*.bin\n")
    (folder / "large.bin").write_bytes(bytes(1000))
    for name, value in ONE_MACHINE_RAY.items():
        monkeypatch.setenv(name, value)
    with tempfile.TemporaryDirectory(prefix="autosparse-") as short:  # sockets need short paths
        monkeypatch.setenv("RAY_TMPDIR", short)
        head = {"num_cpus": 1, "node_ip_address": "127.0.0.1", "dashboard_host": "127.0.0.1"}
        nodes = Nodes(initialize_head=True, head_node_args={**head, "dashboard_port": free_port(PORTS["ray-dashboard"])})
        try:
            given = environment(tmp_path / "home", AUTOSPARSE_RAY_ADDRESS=nodes.address, RAY_TMPDIR=short, **ONE_MACHINE_RAY)
            given.pop("PYTHONPATH")
            command = [sys.executable, "-c", IMPORT, str(folder)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=200, cwd=elsewhere, env=given)
        finally:
            nodes.shutdown()
        assert done.returncode == 0, done.stderr[-3000:]
        found = Path(json.loads(done.stdout.splitlines()[-1]))
        assert found.parts[-2:] == ("models", "net.py") and "working_dir_files" in found.parts
        assert not (found.parents[1] / "large.bin").exists()
