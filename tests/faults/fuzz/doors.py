"""Every door through which a file or a text of somebody else comes in: how a spoiled input is made, and what reads it.

A door takes an input to its end: what it returns was valid. Whatever it raises must be an error of ours.
"""

import hashlib
import io
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from hypothesis import strategies as st
from PIL import Image
from pydantic import TypeAdapter, ValidationError

from autosparse.flows.assignments import parse_changes
from autosparse.flows.init.written import written
from autosparse.flows.recipes import smoke
from autosparse.flows.spec_file import spec_in
from autosparse.library.scorer_files import features_seen, read_scorer
from autosparse.models.arms.names import find_pairs
from autosparse.models.arms.plan import planned
from autosparse.models.errors import SpecError
from autosparse.models.features import FEATURE_NAMES
from autosparse.models.methods.names import spelled
from autosparse.models.scorers.allocation_head import CONTEXT, Allocation
from autosparse.models.scorers.drift import Column, Seen
from autosparse.models.scorers.registry import build_scorer, scorer_config
from autosparse.models.specs.experiment import ExperimentSpec, stored_spec
from autosparse.models.specs.fields import fingerprint, from_plain, override, to_plain
from autosparse.models.specs.run_specs import DataSpec
from autosparse.storage.checkpoints import dump_tensors, load_tensors, load_training_state, read_metadata, save_training_state
from autosparse.storage.dataset_manifest import MANIFEST, Manifest
from autosparse.storage.feature_table import commit_dataset, open_dataset, write_shard
from autosparse.storage.image_datasets import load_images
from autosparse.storage.mask_files import dump_mask, load_mask
from autosparse.storage.open_store import open_store
from tests.faults.fuzz.mutations import DEEP, spoiled_bytes, spoiled_json, spoiled_plain, values

SPEC = TypeAdapter(ExperimentSpec)
LAYERS = [{"name": "conv", "numel": 5, "shape": [5, 1, 1, 1]}, {"name": "fc", "numel": 3, "shape": [3, 1]}]
METADATA = {"source": "resnet8", "seed": 7, "rounds": 3, "features_version": 1, "layers": LAYERS}
METHODS = ("snip", "grda", "grda(c=0.05,mu=0.8)", "rigl(density=0.1)", "fw_rnn()", "autos", "tests.plugins.outside:DECAY(c=0.5)")
ARMS = (
    "dense",
    "snip@0.1",
    "lenet300-100/snip+shuffle@0.1#10",
    "grda(c=0.02,mu=0.8)#10",
    "scorer@1e-2",
    "tests.plugins.outside:size+shuffle@0.1",
)


@dataclass(frozen=True)
class Door:
    """`inputs` draws spoiled inputs; `enter(input, folder)` reads one, with an empty folder for its files."""

    inputs: st.SearchStrategy[Any]
    enter: Callable[[Any, Path], Any]
    cost: int = 1  # how many times slower than a spec


def spec_as_json(data: bytes, folder: Path) -> Any:
    """As `-p spec=...` and a stored spec.json give it."""
    (folder / "spec.json").write_bytes(data)
    spec = stored_spec(open_store(str(folder)).read_json("spec.json"))
    assert from_plain(ExperimentSpec, to_plain(spec)) == spec
    planned(spec)
    return fingerprint(spec)


def spec_in_a_file(data: bytes, folder: Path) -> Any:
    """As `run --spec` takes it, as YAML and as JSON."""
    found = []
    for name in ("spec.yaml", "spec.json"):
        (folder / name).write_bytes(data)
        with suppress(SpecError):  # what one of them does not take the other may
            found.append(spec_in(folder / name))
    if not found:
        raise SpecError("neither")
    assert all(spec == found[0] for spec in found)
    return fingerprint(found[0])


def spec_as_parameter(data: Any, folder: Path) -> Any:
    """As Prefect checks a parameter at submit: its own error is pydantic's."""
    try:
        return SPEC.validate_python(data)
    except ValidationError as error:
        raise SpecError(str(error)) from None


def changes(texts: tuple[str, ...], folder: Path) -> Any:
    """`--set`, once or more often."""
    return override(smoke(), parse_changes(texts))


def method(text: str, folder: Path) -> Any:
    """A name in fanout.methods."""
    return spelled("fanout.methods.0", text)


def arms(texts: tuple[str, str], folder: Path) -> Any:
    """Two arms on the command line of `valley`."""
    return find_pairs(smoke(), *texts)


def manifest(data: bytes, folder: Path) -> Any:
    """The manifest of a data set whose files are as they were; its digest is right wherever it has one."""
    root = _dataset(folder)
    with suppress(ValueError, TypeError, KeyError, AttributeError, RecursionError):  # else refused before the digest is looked at
        data = _signed(json.loads(data))
    (root / MANIFEST).write_bytes(data)
    return _read_all(root)


def features(data: bytes, folder: Path) -> Any:
    """A part whose manifest fits it: whoever wrote it knew the digest."""
    root = _dataset(folder)
    plain = json.loads((root / MANIFEST).read_bytes())
    plain["parts"][0] |= {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (root / "part-00000.parquet").write_bytes(data)
    (root / MANIFEST).write_bytes(Manifest.load(_signed(plain), "m").dump())
    return _read_all(root)


def staged(data: bytes, folder: Path) -> Any:
    """A part that is spoiled before it is committed: published whole, or nothing of it."""
    with write_shard(folder / "staged.parquet", METADATA) as writer:
        _fill(writer)
    (folder / "staged.parquet").write_bytes(data)
    store = open_store(str(folder / "root"))
    try:
        return commit_dataset(store, "features", [writer.part], {})
    finally:
        there = store.list()
        assert not there or any(key.endswith(MANIFEST) for key in there), there


def image_parquet(data: bytes, folder: Path) -> Any:
    """Images in Parquet, through the cache."""
    (folder / "train.parquet").write_bytes(data)
    (folder / "test.parquet").write_bytes(IMAGES)
    return _images("parquet", folder)


def image_file(data: bytes, folder: Path) -> Any:
    """One picture among good ones, first or second."""
    for place, content in (("train/a/1.png", data), ("train/b/1.png", PICTURES["PNG"]), ("test/a/1.png", PICTURES["PNG"])):
        (folder / place).parent.mkdir(parents=True)
        (folder / place).write_bytes(content)
    return _images("image_folder", folder)


def mask(data: bytes, folder: Path) -> Any:
    """A mask file."""
    return load_mask(data)


def tensors(data: bytes, folder: Path) -> Any:
    """Any safetensors file."""
    return load_tensors(data), read_metadata(data)


def scorer(files: tuple[bytes, bytes], folder: Path) -> Any:
    """Card and tensors of a scorer, used once."""
    module, card = read_scorer(*files, "here")
    features_seen(card)
    return module


def training_state(files: tuple[bytes, bytes], folder: Path) -> Any:
    """A checkpoint whose state.json fits its files: whoever wrote it knew the digest."""
    state, optimizer = files
    (folder / "model.safetensors").write_bytes(MODEL)
    (folder / "optimizer.safetensors").write_bytes(optimizer)
    good = hashlib.sha256(OPTIMIZER).hexdigest().encode()
    (folder / "state.json").write_bytes(state.replace(good, hashlib.sha256(optimizer).hexdigest().encode()))
    return load_training_state(folder)


def _images(name: str, folder: Path) -> Any:
    cache = folder / "cache"
    try:
        return load_images(DataSpec(name=name, path=str(folder)), cache)
    finally:
        assert not list(cache.rglob("*.partial")), "a half-made entry"
        assert all(len(list(entry.parent.iterdir())) == 3 for entry in cache.rglob("split.json"))


def _dataset(folder: Path) -> Path:
    root = folder / "features"
    root.mkdir()
    for name, data in DATASET.items():
        (root / name).write_bytes(data)
    return root


def _read_all(root: Path) -> Any:
    dataset = open_dataset(str(root))
    return [list(dataset.batches(part)) for part in range(len(dataset.parts))]


def _signed(plain: dict[str, Any]) -> bytes:
    from autosparse.storage.dataset_manifest import StoredPart

    parts = tuple(StoredPart(**part) for part in plain["parts"])
    digest = Manifest(schema=plain["schema"], metadata=plain["metadata"], parts=parts).digest
    return json.dumps(plain | {"digest": digest}).encode()


def _fill(writer: Any) -> None:
    for number, layer in enumerate(LAYERS):
        values = np.linspace(-1, 1, int(str(layer["numel"])), dtype=np.float32)
        writer.add(number, values, values / 2, np.ones(len(values), np.uint8), np.full(len(values), 9, np.uint8))


def _made_dataset() -> dict[str, bytes]:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        with write_shard(Path(folder, "a.parquet"), METADATA) as writer:
            _fill(writer)
        ref = commit_dataset(open_store(f"{folder}/root"), "features", [writer.part], {"rounds": 3})
        return {path.name: path.read_bytes() for path in Path(ref.uri).iterdir()}


def _made_state() -> tuple[dict[str, Any], bytes, bytes]:
    import tempfile

    network = torch.nn.Linear(3, 2)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    network(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    with tempfile.TemporaryDirectory() as folder:
        save_training_state(Path(folder), network.state_dict(), optimizer.state_dict(), {"step": 1})
        files = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
    return json.loads(files["state.json"]), files["model.safetensors"], files["optimizer.safetensors"]


def _made_scorer(kind: str) -> tuple[dict[str, Any], bytes]:
    made = build_scorer(kind, hidden=(4,), seed=0)
    card = {"scorer": scorer_config(made) | {"allocation": HEAD.to_plain()}, "features_seen": {"resnet8": SEEN.to_plain()}}
    return card, dump_tensors(made.state_dict())


def _picture(kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.arange(75, dtype=np.uint8).reshape(5, 5, 3)).save(file, kind)
    return file.getvalue()


def _image_parquet() -> bytes:
    picture = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    rows = [{"bytes": PICTURES["PNG"], "path": f"{row}.png"} for row in range(3)]
    described = {"info": {"features": {"label": {"names": ["a", "b"], "_type": "ClassLabel"}}}}
    table = pa.table({"img": pa.array(rows, picture), "label": pa.array([0, 1, 0], pa.int64())})
    file = io.BytesIO()
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(described)}), file)
    return file.getvalue()


PLAIN = to_plain(smoke())
WRITTEN = written(smoke(), "A comment.").encode()
DATASET = _made_dataset()
STATE, MODEL, OPTIMIZER = _made_state()
PICTURES = {kind: _picture(kind) for kind in ("PNG", "JPEG", "BMP", "WEBP")}
IMAGES = _image_parquet()
MASK = dump_mask({"a": torch.arange(20).reshape(4, 5) % 3 == 0, "b": torch.ones(3, dtype=torch.bool)})
TENSORS = dump_tensors({"a": torch.ones(2, 3), "b": torch.arange(4)}, {"key": "value"})
SEEN = Seen(rows=10, columns={name: Column(values=(0.0, 1.0)) for name in FEATURE_NAMES})
HEAD = Allocation(slopes=(1.0,) * len(CONTEXT), offsets=(0.0,) * len(CONTEXT), final_density=0.1)
CARDS = [_made_scorer(kind) for kind in ("mlp", "table")]
LEAVES = (
    *("irp.rounds", "irp.seeds.0", "irp.networks.0.name", "fanout.methods", "data.path", "valley.pairs"),
    *("scorer.allocation", "scorer.tilt", "scorer.unused"),
)


def spoiled_text(texts: tuple[str, ...]) -> st.SearchStrategy[str]:
    """One of the texts with other characters in it."""
    broken = st.sampled_from(texts).flatmap(lambda text: spoiled_bytes(text.encode())).map(lambda data: data.decode(errors="replace"))
    return st.one_of(broken, st.text(max_size=30), values().map(str))


def one_change() -> st.SearchStrategy[str]:
    """A `--set`."""
    said = st.tuples(st.sampled_from(LEAVES), values()).map(lambda pair: f"{pair[0]}={json.dumps(pair[1])}")
    return st.one_of(said, spoiled_text(tuple(f"{path}=[1,x(a=2)]" for path in LEAVES)), st.just("irp.rounds=" + "[" * DEEP + "]" * DEEP))


def headed(valid: bytes) -> st.SearchStrategy[bytes]:
    """A safetensors file with a header that says something else, or spoiled bytes."""
    length = int.from_bytes(valid[:8], "little")

    def put(header: bytes) -> bytes:
        return len(header).to_bytes(8, "little") + header + valid[8 + length :]

    def inner(data: bytes) -> bytes:
        header = json.loads(valid[8 : 8 + length])
        header["__metadata__"]["autosparse"] = data.decode("utf-8", errors="replace")
        return put(json.dumps(header).encode())

    header = json.loads(valid[8 : 8 + length])
    own = json.loads(header["__metadata__"]["autosparse"])
    own = own | {"metadata": {key: _parsed(text) for key, text in own["metadata"].items()}}
    return st.one_of(spoiled_bytes(valid), spoiled_json(header).map(put), spoiled_json(own).map(_as_text).map(inner))


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _as_text(data: bytes) -> bytes:
    """Metadata whose values are JSON in a string, as `dump_mask` writes its shapes."""
    try:
        plain = json.loads(data)
        return json.dumps(plain | {"metadata": {key: json.dumps(value) for key, value in plain["metadata"].items()}}).encode()
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return data


def parquet(valid: bytes) -> st.SearchStrategy[bytes]:
    """Parquet with spoiled bytes, or with another picture in a row."""
    return spoiled_bytes(valid)


DOORS = {
    "spec": Door(spoiled_json(PLAIN), spec_as_json),
    "file": Door(st.one_of(spoiled_json(PLAIN), spoiled_bytes(WRITTEN)), spec_in_a_file, 4),
    "parameter": Door(spoiled_plain(PLAIN), spec_as_parameter),
    "set": Door(st.lists(one_change(), min_size=1, max_size=3).map(tuple), changes),
    "method": Door(spoiled_text(METHODS), method),
    "arms": Door(st.tuples(spoiled_text(ARMS), spoiled_text(ARMS)), arms),
    "manifest": Door(spoiled_json(json.loads(DATASET[MANIFEST])), manifest, 2),
    "features": Door(parquet(DATASET["part-00000.parquet"]), features, 4),
    "staged": Door(parquet(DATASET["part-00000.parquet"]), staged, 8),
    "image_parquet": Door(parquet(IMAGES), image_parquet, 4),
    "image_file": Door(st.sampled_from(list(PICTURES.values())).flatmap(spoiled_bytes), image_file, 4),
    "mask": Door(headed(MASK), mask),
    "tensors": Door(headed(TENSORS), tensors),
    "scorer": Door(
        st.sampled_from(CARDS).flatmap(lambda pair: st.tuples(spoiled_json(pair[0]), st.one_of(st.just(pair[1]), headed(pair[1])))),
        scorer,
        2,
    ),
    "training_state": Door(st.tuples(spoiled_json(STATE), st.one_of(st.just(OPTIMIZER), headed(OPTIMIZER))), training_state),
}
