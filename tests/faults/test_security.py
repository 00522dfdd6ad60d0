"""Whoever can hand in a file or an address gets no code of theirs run, and no secret is written down."""

import ast
import hashlib
import io
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from autosparse.library.scorer_files import load_scorer, save_scorer
from autosparse.models.errors import AutosparseError, SpecError, not_allowed, without_password
from autosparse.models.scorers.registry import build_scorer
from autosparse.models.specs.experiment import ExperimentSpec
from autosparse.models.specs.fields import from_plain
from autosparse.models.specs.run_specs import DataSpec
from autosparse.storage.addresses import address_kind
from autosparse.storage.checkpoints import load_tensors, load_training_state, save_training_state
from autosparse.storage.feature_table import open_dataset
from autosparse.storage.image_datasets import load_images
from autosparse.storage.mask_files import load_mask
from autosparse.storage.open_store import open_store
from autosparse.tasks import settings as settings_module
from tests.faults.fuzz.doors import DATASET, IMAGES
from tests.faults.matrix import fault
from tests.faults.payload import Trap, trapped
from tests.pipeline.command_line import ROOT

PRODUCT = ("flows", "tasks", "models", "storage", "examples", "benchmarks")
# calls that can run what a file says; `allow_pickle=False` is the one form of np.load that cannot
LOADERS = {
    "load",
    "loads",
    "Unpickler",
    "read_pickle",
    "load_module",
    "unsafe_load",
    "full_load",
    "load_all",
    "load_model",
    "eval",
    "exec",
    "compile",
}
OWNERS = {
    "torch",
    "pickle",
    "cloudpickle",
    "dill",
    "joblib",
    "marshal",
    "shelve",
    "yaml",
    "pd",
    "pandas",
    "np",
    "numpy",
    "builtins",
    "jsonpickle",
    "mlflow",
}


def calls(path: Path) -> list[tuple[int, str, set[str]]]:
    """(line, dotted name, keywords with the value False) of every call in a file."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            off = {one.arg or "" for one in node.keywords if isinstance(one.value, ast.Constant) and one.value.value is False}
            found.append((node.lineno, ast.unparse(node.func), off))
    return found


def imported(path: Path) -> list[tuple[int, str, set[str]]]:
    """The same of every name that is imported out of a module."""
    found = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom) and node.module]
    return [(node.lineno, f"{node.module}.{one.name}", set()) for node in found for one in node.names]


def suspicious(name: str, off: set[str]) -> bool:
    owner, _, last = name.rpartition(".")
    if name in ("eval", "exec", "__import__"):
        return True
    return owner.split(".")[0] in OWNERS and last in LOADERS and not (last == "load" and "allow_pickle" in off) and name != "torch.compile"


@fault(
    25, "a loader of pickles somewhere in the product", "there is none: no torch.load, pickle, yaml.load, np.load of objects, eval, exec"
)
def test_nothing_in_the_product_loads_code() -> None:
    assert all(suspicious(name, set()) for name in ("torch.load", "np.load", "pickle.loads", "mlflow.pytorch.load_model"))
    bad = [
        f"{path.relative_to(ROOT)}:{line} {name}"
        for folder in PRODUCT
        for path in (ROOT / folder).rglob("*.py")
        for line, name, off in (*calls(path), *imported(path))
        if suspicious(name, off)
    ]
    assert bad == []


def parquet_with(columns: Any, metadata: dict[bytes, bytes]) -> bytes:
    """A Parquet file whose schema says more than its columns."""
    file = io.BytesIO()
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata), file)
    return file.getvalue()


def extension(marker: Path) -> bytes:
    """Parquet whose stored Arrow schema asks for a pickled extension type on a column, with pickles for pandas and Hugging Face."""
    bare = pickle.dumps(Trap(marker), protocol=4)
    asks = {b"ARROW:extension:name": b"arrow.py_extension_type", b"ARROW:extension:metadata": bare}
    picture = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    schema = pa.schema([pa.field("img", picture), pa.field("label", pa.int64(), metadata=asks)])
    schema = schema.with_metadata({b"pandas": bare, b"huggingface": bare, b"autosparse": bare})
    rows = [{"bytes": bare, "path": "0.png"}]
    file = io.BytesIO()
    pq.write_table(pa.Table.from_arrays([pa.array(rows, picture), pa.array([0], pa.int64())], schema=schema), file)
    return file.getvalue()


def images(folder: Path, name: str = "parquet") -> Any:
    return load_images(DataSpec(name=name, path=str(folder)), folder / "cache")


Door = Callable[[Path, bytes], Any]


def checkpoint(file: str) -> Door:
    def enter(folder: Path, data: bytes) -> Any:
        save_training_state(folder, {"w": torch.ones(2)}, {"state": {}, "param_groups": []}, {})
        (folder / file).write_bytes(data)
        state = json.loads((folder / "state.json").read_bytes()) if file != "state.json" else None
        if state:  # whoever planted it knew the digest
            state["sha256"][file] = hashlib.sha256(data).hexdigest()
            (folder / "state.json").write_text(json.dumps(state))
        return load_training_state(folder)

    return enter


def scorer(file: str) -> Door:
    def enter(folder: Path, data: bytes) -> Any:
        store = open_store(str(folder))
        save_scorer(store, "scorer", build_scorer("mlp", hidden=(4,), seed=0), {})
        (folder / "scorer" / file).write_bytes(data)
        return load_scorer(store, "scorer")

    return enter


def dataset(file: str) -> Door:
    def enter(folder: Path, data: bytes) -> Any:
        for name, whole in DATASET.items():
            (folder / name).write_bytes(data if name == file else whole)
        found = open_dataset(str(folder), verify=False)
        return list(found.batches(0))

    return enter


def image_parquet(folder: Path, data: bytes) -> Any:
    (folder / "train.parquet").write_bytes(data)
    (folder / "test.parquet").write_bytes(IMAGES)
    return images(folder)


def picture(folder: Path, data: bytes) -> Any:
    for place in ("train/a/1.png", "test/a/1.png"):
        (folder / place).parent.mkdir(parents=True)
        (folder / place).write_bytes(data)
    return images(folder, "image_folder")


def cifar(folder: Path, data: bytes) -> Any:
    (folder / "cifar-10-batches-py").mkdir()
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta"):
        (folder / "cifar-10-batches-py" / name).write_bytes(data)
    return images(folder, "cifar10")


def mnist(folder: Path, data: bytes) -> Any:
    for place in ("MNIST/processed/training.pt", "MNIST/processed/test.pt", "MNIST/raw/train-images-idx3-ubyte"):
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_bytes(data)
    return images(folder, "mnist")


def cache(folder: Path, data: bytes) -> Any:
    """Decoded images of an earlier run: an entry that cannot be read is made again."""
    for name in ("train.parquet", "test.parquet"):
        (folder / name).write_bytes(IMAGES)
    images(folder)
    for entry in (folder / "cache").rglob("*.npy"):
        entry.write_bytes(data)
    images(folder)
    raise SpecError("made again, which is right")


DOORS: dict[str, Door] = {
    **{f"checkpoint {file}": checkpoint(file) for file in ("model.safetensors", "optimizer.safetensors", "state.json")},
    **{f"scorer {file}": scorer(file) for file in ("scorer.json", "scorer.safetensors")},
    **{f"data set {file}": dataset(file) for file in DATASET},
    "mask": lambda folder, data: load_mask(data),
    "weights": lambda folder, data: load_tensors(data),
    "image Parquet": image_parquet,
    "picture": picture,
    "CIFAR-10": cifar,
    "MNIST": mnist,
    "image cache": cache,
    "spec": lambda folder, data: from_plain(ExperimentSpec, json.loads(data) if data[:1] == b"{" else data.hex()),
}


@pytest.mark.parametrize("door", DOORS)
@fault(
    25, "a pickle with a payload planted as checkpoint, scorer, mask, Parquet, picture, spec, manifest, cache", "not run; an error of ours"
)
def test_a_planted_payload_is_not_run(door: str, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    planted = {**trapped(marker), "parquet": extension(marker)}
    for number, data in enumerate(planted.values()):
        folder = tmp_path / str(number)
        folder.mkdir()
        with pytest.raises(AutosparseError):
            DOORS[door](folder, data)
    assert not marker.exists()


@fault(25, "the payload itself", "it does run where somebody loads it: the tests can fail")
def test_the_payload_works(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    with pytest.raises(pickle.UnpicklingError):
        pickle.loads(b"not " + trapped(marker)["pickle"])
    assert not marker.exists()
    pickle.loads(trapped(marker)["pickle"])
    assert marker.is_dir()
    marker.rmdir()
    np.load(io.BytesIO(trapped(marker)["numpy"]), allow_pickle=True)
    assert marker.is_dir()


FOREIGN = """
import pathlib, sys
import mlflow

uri, marker, folder = sys.argv[1:]
mlflow.set_tracking_uri(uri)
code = pathlib.Path(folder, "code")
code.mkdir()
touch = f"open({marker!r}, 'w').close()"
(code / "planted.py").write_text(touch)
(code / "model.py").write_text(f'''
import mlflow
{touch}
class Theirs(mlflow.pyfunc.PythonModel):
    def load_context(self, context): {touch}
    def predict(self, context, model_input: list[str]): return model_input
mlflow.models.set_model(Theirs())
''')
experiment = mlflow.create_experiment("theirs", artifact_location=pathlib.Path(folder, "artifacts").as_uri())
with mlflow.start_run(experiment_id=experiment):
    mlflow.pyfunc.log_model(
        name="m", python_model=str(code / "model.py"), code_paths=[str(code)], registered_model_name="x", pip_requirements=[]
    )
"""


@pytest.mark.timeout(200)
@fault(26, "`--scorer models:/x/1`: a pyfunc of somebody else, with code", "refused as not made by autosparse; nothing of it is loaded")
def test_a_model_that_we_did_not_make_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri, marker = f"sqlite:///{tmp_path}/mlflow.db", tmp_path / "marker"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    made = subprocess.run(
        [sys.executable, "-c", FOREIGN, uri, str(marker), str(tmp_path)],
        capture_output=True, text=True, timeout=150, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert made.returncode == 0, made.stderr[-2000:]
    marker.unlink()  # making it ran it
    here = settings_module.load()
    from autosparse.tasks.tracking.tracker import load_scorer_files

    with pytest.raises(AutosparseError, match=r"^scorer: models:/x/1 "):
        load_scorer_files(here, "models:/x/1")
    assert not marker.exists()
    assert "planted" not in sys.modules


SECRET = "hunter2hunter2"
USERS = (
    "postgresql://me:{0}@db/x",
    "http://me:{0}@host:1/api",
    "mysql+pymysql://me:{0}@h:1/d?x=1",
    "s3://key:{0}@bucket/prefix",
    "a http://u:{0}@h b",
)


@pytest.mark.parametrize("text", USERS)
@fault(28, "a password in any address", "no message and no record shows it")
def test_no_message_shows_a_password(text: str) -> None:
    shown = text.format(SECRET)
    assert SECRET not in without_password(shown) and "@" in without_password(shown)
    assert SECRET not in str(not_allowed("x", shown, "y"))
    for refused in (lambda: address_kind("x", shown), lambda: open_store(shown)):
        if not shown.startswith("a "):
            with pytest.raises(SpecError) as caught:
                refused()
            assert SECRET not in str(caught.value)


@fault(28, "a password in MLFLOW_TRACKING_URI or PREFECT_API_URL", "taken out of the address, handed to the library that asks for it")
def test_credentials_leave_the_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "PREFECT_API_AUTH_STRING"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:hunter%402@mlflow.example/x")
    monkeypatch.setenv("PREFECT_API_URL", f"http://you:{SECRET}@prefect.example:4200/api")
    here = settings_module.load()
    assert (here.mlflow_uri, here.prefect_api_url) == ("https://mlflow.example/x", "http://prefect.example:4200/api")
    assert (os.environ["MLFLOW_TRACKING_USERNAME"], os.environ["MLFLOW_TRACKING_PASSWORD"]) == ("me", "hunter@2")
    assert os.environ["PREFECT_API_AUTH_STRING"] == f"you:{SECRET}"
    assert settings_module.load() == here


@fault(28, "a name and password in AWS_ENDPOINT_URL", "refused at once, without showing it")
def test_an_endpoint_with_a_password_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://me:{SECRET}@127.0.0.1:9")
    with pytest.raises(SpecError, match=r"^AWS_ENDPOINT_URL: 'http://\*\*\*@127.0.0.1:9' is not allowed") as refused:
        open_store("s3://bucket/x")
    assert SECRET not in str(refused.value)
