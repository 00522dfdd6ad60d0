"""A network as a file that other programs run: ONNX, torch.export, or its weights as safetensors."""

import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

import autosparse
from autosparse.library.compaction import difference, line
from autosparse.models.channels.examples import tensors
from autosparse.models.channels.plain import plain_copy
from autosparse.models.errors import SpecError, not_allowed
from autosparse.models.networks.calls import call, mapped, twice
from autosparse.storage.checkpoints import dump_tensors, load_tensors

NEEDED = ("onnx", "onnxscript", "onnxruntime")
INLINE = 1.5e9  # bytes of weights that a protobuf can hold with room to spare; more goes into a file beside it


@dataclass(frozen=True)
class Exported:
    """What was written: the file, its bytes, and whether it takes any number of examples at a time or as many as the example had."""

    path: Path
    bytes: int
    any_batch: bool


def export(model: nn.Module, example: Any, path: str | Path) -> Exported:
    """Write `model` in eval mode to a file, by its ending: `.onnx`, `.pt2` (torch.export) or `.safetensors` (weights and buffers).

    `example` is one input: a tensor, or a tuple or dict of tensors, with the batch as the first dimension. ONNX and torch.export take
    batches of any size where torch can show that the network does. The file is read back before it is there: ONNX in ONNX Runtime, with
    batches of two sizes, must give the outputs of the network to 1e-5 of the largest; tensors must be equal.

    Raises SpecError for another ending, a folder that is not there or cannot be written, missing packages (`autosparse[export]`), an
    example that does not run, a network that torch cannot export, and outputs that differ. Then no file is left.
    """
    target, write = check_path(Path(path))
    network = plain_copy(model)[0].cpu().eval()
    example = mapped(lambda tensor: tensor.detach().cpu(), example)
    try:
        with torch.no_grad():
            call(network, example)
    except Exception as error:  # whatever a foreign network says of an input that is not its own
        shapes = mapped(lambda tensor: tuple(tensor.shape), example)
        raise not_allowed("example", shapes, f"one input of the network ({line(error)})") from error
    with TemporaryDirectory(prefix=".export-", dir=target.parent) as folder, _quiet():
        try:
            any_batch = write(network, example, Path(folder) / target.name)
        except SpecError:
            raise
        except Exception as error:  # of the many kinds that torch's exporters raise
            raise SpecError(f"export: {type(network).__name__} cannot be exported to {target.suffix} ({line(error)})") from error
        files = sorted(Path(folder).iterdir(), key=lambda file: file.name == target.name)  # the file itself last
        total = sum(file.stat().st_size for file in files)
        for file in files:
            os.replace(file, target.parent / file.name)
    return Exported(target, total, any_batch)


def check_path(path: Path) -> tuple[Path, Callable[[nn.Module, Any, Path], bool]]:
    """The path and what writes it. Raises SpecError for an ending that nothing writes, a place that cannot be written, missing packages."""
    writers = {".onnx": _write_onnx, ".pt2": _write_program, ".safetensors": _write_weights}
    if path.suffix not in writers:
        raise not_allowed("path", str(path), "a file that ends in .onnx, .pt2 or .safetensors")
    if not path.parent.is_dir():
        raise not_allowed("path", str(path), f"a file in a folder that exists ({path.parent} does not)")
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise not_allowed("path", str(path), "a file that can be written")
    missing = [name for name in NEEDED if find_spec(name) is None] if path.suffix == ".onnx" else []
    if missing:
        raise SpecError(f"export: ONNX needs {', '.join(missing)}; install autosparse[export] (pip install 'autosparse[export]')")
    return path, writers[path.suffix]


def _write_onnx(network: nn.Module, example: Any, path: Path) -> bool:
    program, any_batch = _program(network, example)
    weights = sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())
    torch.onnx.export(program, dynamo=True, external_data=weights > INLINE, verbose=False).save(path)  # pyright: ignore
    session: Any = import_module("onnxruntime").InferenceSession(str(path), providers=["CPUExecutionProvider"])

    names = [one.name for one in session.get_inputs()]

    def run(example: Any) -> list[Tensor]:
        by_name = isinstance(example, Mapping) and set(example) == set(names)
        given = example if by_name else dict(zip(names, tensors(example), strict=True))
        return [torch.from_numpy(array) for array in session.run(None, {name: tensor.numpy() for name, tensor in given.items()})]

    _compare(network, run, example, any_batch)
    return any_batch


def _write_program(network: nn.Module, example: Any, path: Path) -> bool:
    program, any_batch = _program(network, example)
    torch.export.save(program, path)
    loaded = torch.export.load(path).module()
    _compare(network, lambda example: list(tensors(call(loaded, example))), example, any_batch)
    return any_batch


def _write_weights(network: nn.Module, example: Any, path: Path) -> bool:
    kind = type(network)
    facts = {"network": f"{kind.__module__}.{kind.__qualname__}", "torch": torch.__version__, "autosparse": autosparse.__version__}
    state = network.state_dict()
    path.write_bytes(dump_tensors(state, facts))
    read = load_tensors(path.read_bytes(), source=path.name)
    if any(not torch.equal(read[name], tensor) for name, tensor in state.items()):
        raise SpecError(f"export: {path.name} does not hold the weights that were written (are they all numbers?)")
    return True


def _program(network: nn.Module, example: Any) -> tuple[Any, bool]:
    """The network as torch.export sees it, and whether the size of the batch is left open."""
    sizes = {tensor.shape[0] if tensor.dim() else 0 for tensor in tensors(example)}
    if len(sizes) == 1:
        many = twice(example)  # torch takes a size of one for a constant
        batch = torch.export.Dim("batch", min=1)
        try:
            return _exported(network, many, mapped(lambda tensor: {0: batch}, many)), True
        except Exception:  # the code of the network needs its number of examples to be a number
            pass
    return _exported(network, example, None), False


def _exported(network: nn.Module, example: Any, shapes: Any) -> Any:
    with torch.no_grad():
        if isinstance(example, Mapping):
            return torch.export.export(network, (), kwargs=dict(example), dynamic_shapes=shapes, strict=False)
        args, by_position = (tuple(each) if isinstance(each, list | tuple) else (each,) for each in (example, shapes))
        return torch.export.export(network, args, dynamic_shapes=None if shapes is None else by_position, strict=False)


def _compare(network: nn.Module, run: Callable[[Any], list[Tensor]], example: Any, any_batch: bool) -> None:
    for given in (example, twice(twice(example))) if any_batch else (example,):
        with torch.no_grad():
            wanted = list(tensors(call(network, given)))
            if problem := difference(run(given), wanted):
                raise SpecError(
                    f"export: the file would not be the same function as {type(network).__name__} ({problem}); nothing was written"
                )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the notes of the exporters, which speak of their own insides."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
