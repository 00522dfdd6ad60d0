"""How each runtime runs a pruned network: a candidate is a runtime and what it is given, and becomes a function that runs one pass.

Those that autosparse does not install take part where they can be imported: openvino, MNN. MNN is used without its `MNN.tools`, which
install packages with pip when they are imported and report what was converted.
"""

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autosparse.models.masks.reparametrized import copied

Run = Callable[[], np.ndarray]
OPSET = 14
BLOCK = 4
RATE = 0.5  # of zeros, from which OpenVINO is told to unpack weights


@dataclass(frozen=True)
class Case:
    """Networks in eval mode by what was done to them ("dense", "masked", "compacted"), the masked parameters, one batch of images."""

    networks: dict[str, nn.Module]
    masked: tuple[str, ...]
    images: Tensor
    folder: Path


def torch_eager(network: nn.Module, images: Tensor) -> Run:
    """The network as it is."""

    def run() -> np.ndarray:
        with torch.inference_mode():
            return network(images).numpy()

    return run


class SparseLayer(nn.Module):
    """A linear layer or a convolution without groups as a sparse matrix times a dense one: `multiply` (inputs, n) -> (outputs, n)."""

    def __init__(self, layer: nn.Linear | nn.Conv2d, multiply: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.multiply, self.bias = multiply, layer.bias
        self.window: dict[str, Any] = {}
        if isinstance(layer, nn.Conv2d):
            self.window = {key: getattr(layer, key) for key in ("kernel_size", "stride", "padding", "dilation")}

    def forward(self, inputs: Tensor) -> Tensor:
        """What the layer gives."""
        if not self.window:
            result = self.multiply(inputs.reshape(-1, inputs.shape[-1]).T).T.reshape(*inputs.shape[:-1], -1)
            return result if self.bias is None else result + self.bias
        columns = F.unfold(inputs, self.window["kernel_size"], self.window["dilation"], self.window["padding"], self.window["stride"])
        high, wide = (_outputs(self.window, inputs.shape[2 + axis], axis) for axis in (0, 1))
        result = self.multiply(columns.transpose(0, 1).reshape(columns.shape[1], -1))
        result = result.reshape(len(result), len(inputs), high, wide).transpose(0, 1)
        return result if self.bias is None else result + self.bias[:, None, None]


def _outputs(window: dict[str, Any], inputs: int, axis: int) -> int:
    kernel, stride, padding, dilation = (window[key][axis] for key in ("kernel_size", "stride", "padding", "dilation"))
    return (inputs + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


def sparse_layers(network: nn.Module, masked: tuple[str, ...], multiplier: Callable[[Tensor], Callable[[Tensor], Tensor]]) -> nn.Module:
    """A copy with every masked layer replaced. Raises ValueError for a masked parameter of another kind of layer."""
    network = copied(network)
    for name in masked:
        place = name.rpartition(".")[0]
        layer = network.get_submodule(place)
        if not isinstance(layer, nn.Linear | nn.Conv2d) or getattr(layer, "groups", 1) != 1:
            raise ValueError(f"{name}: {type(layer).__name__} is no linear layer and no convolution without groups")
        network.set_submodule(place, SparseLayer(layer, multiplier(layer.weight.detach().flatten(1))))
    return network


def torch_csr(weight: Tensor) -> Callable[[Tensor], Tensor]:
    """torch's CSR matrix."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is a beta
        return partial(torch.sparse.mm, weight.to_sparse_csr())


def torch_coo(weight: Tensor) -> Callable[[Tensor], Tensor]:
    """torch's COO matrix."""
    return partial(torch.sparse.mm, weight.to_sparse_coo().coalesce())


def torch_bsr(weight: Tensor) -> Callable[[Tensor], Tensor]:
    """torch's blocks of 4 x 4; a matrix that they do not divide stays dense."""
    if any(side % BLOCK for side in weight.shape):
        return partial(torch.mm, weight)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is a beta
        return partial(torch.mm, weight.to_sparse_bsr((BLOCK, BLOCK)))


def scipy_csr(weight: Tensor) -> Callable[[Tensor], Tensor]:
    """SciPy's CSR matrix."""
    matrix = import_module("scipy.sparse").csr_matrix(weight.numpy())
    return lambda inputs: torch.from_numpy(matrix @ inputs.numpy())


def onnx_file(case: Case, variant: str) -> str:
    """The network as ONNX for this batch, written once. The old exporter takes a tenth of the time, and folds the norms."""
    path = case.folder / f"{variant}-{len(case.images)}.onnx"
    if not path.exists():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the old exporter will go
            torch.onnx.export(
                case.networks[variant], (case.images,), str(path), dynamo=False, opset_version=OPSET, input_names=["x"], output_names=["y"]
            )
    return str(path)


def sparse_onnx(path: str) -> str:
    """The same file with initializers that are mostly zeros as SparseTensorProto."""
    onnx = import_module("onnx")
    model = onnx.load(path)
    for one in list(model.graph.initializer):
        dense = onnx.numpy_helper.to_array(one)
        places = np.flatnonzero(dense)
        if dense.ndim < 2 or 2 * len(places) > dense.size:
            continue
        values = onnx.numpy_helper.from_array(dense.reshape(-1)[places], one.name)
        indices = onnx.numpy_helper.from_array(places.astype(np.int64))
        model.graph.sparse_initializer.append(onnx.helper.make_sparse_tensor(values, indices, dense.shape))
        model.graph.initializer.remove(one)
    onnx.save(model, path.replace(".onnx", "-sparse.onnx"))
    return path.replace(".onnx", "-sparse.onnx")


def onnx_runtime(path: str, images: Tensor) -> Run:
    """ONNX Runtime on the CPU, one thread."""
    ort: Any = import_module("onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"x": images.numpy()})[0]


def openvino(path: str, images: Tensor, **settings: Any) -> Run:
    """OpenVINO on the CPU, one thread, float32."""
    core = import_module("openvino").Core()
    request = core.compile_model(
        path, "CPU", {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32", **settings}
    ).create_infer_request()
    return lambda: request.infer({0: images.numpy()})[0]


def mnn(path: str, images: Tensor, *, sparse: bool) -> Run:
    """MNN on the CPU, one thread, float32; `sparse` lets its converter look for layers that are faster as sparse ones."""
    target = f"{path}{'.sparse' if sparse else ''}.mnn"
    command = ["mnnconvert", "-f", "ONNX", "--modelFile", path, "--MNNModel", target, "--bizCode", "autosparse"]
    with _silent():
        import_module("_tools").mnnconvert([*command, "--detectSparseSpeedUp"] if sparse else command)
        nn_, expressions = import_module("MNN.nn"), import_module("MNN.expr")
        manager = nn_.create_runtime_manager(({"backend": "CPU", "numThread": 1, "precision": "high"},))
        module = nn_.load_module_from_file(target, ["x"], ["y"], runtime_manager=manager)
        given = expressions.const(images.numpy(), list(images.shape), expressions.NCHW)
    return lambda: np.array(module.forward([given])[0].read())


@contextmanager
def _silent() -> Iterator[None]:
    """Nothing that C++ prints."""
    kept, nothing = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nothing)


@dataclass(frozen=True)
class Candidate:
    """A runtime with what it is given; `needs` is a package, `layers` those that replace layers one by one.

    `tolerance` is how far its outputs may be from torch's, of the largest. MNN approximates: 2.4e-4 in a ViT.
    """

    runtime: str
    variant: str
    build: Callable[[Case], Run]
    needs: str = "torch"
    layers: bool = False
    tolerance: float = 1e-4

    @property
    def there(self) -> bool:
        """Whether its package can be imported."""
        return find_spec(self.needs) is not None


def _of_torch(variant: str) -> Callable[[Case], Run]:
    return lambda case: torch_eager(case.networks[variant], case.images)


def _of_layers(multiplier: Callable[[Tensor], Callable[[Tensor], Tensor]]) -> Callable[[Case], Run]:
    return lambda case: torch_eager(sparse_layers(case.networks["masked"], case.masked, multiplier), case.images)


def _of_file(run: Callable[..., Run], variant: str, **settings: Any) -> Callable[[Case], Run]:
    return lambda case: run(onnx_file(case, variant), case.images, **settings)


DENSE, MASKED, COMPACTED = "dense", "masked", "compacted"
RATED = {"CPU_SPARSE_WEIGHTS_DECOMPRESSION_RATE": RATE}
CANDIDATES = {
    "torch dense": Candidate("torch", DENSE, _of_torch(DENSE)),  # what all others are compared with
    "torch masked": Candidate("torch", MASKED, _of_torch(MASKED)),
    "torch CSR": Candidate("torch", MASKED, _of_layers(torch_csr), layers=True),
    "torch COO": Candidate("torch", MASKED, _of_layers(torch_coo), layers=True),
    "torch BSR 4x4": Candidate("torch", MASKED, _of_layers(torch_bsr), layers=True),
    "SciPy CSR": Candidate("torch", MASKED, _of_layers(scipy_csr), "scipy", layers=True),
    "torch compacted": Candidate("torch", COMPACTED, _of_torch(COMPACTED)),
    "ONNX Runtime dense": Candidate("ONNX Runtime", DENSE, _of_file(onnx_runtime, DENSE), "onnxruntime"),
    "ONNX Runtime masked": Candidate("ONNX Runtime", MASKED, _of_file(onnx_runtime, MASKED), "onnxruntime"),
    "ONNX Runtime sparse initializers": Candidate(
        "ONNX Runtime", MASKED, lambda case: onnx_runtime(sparse_onnx(onnx_file(case, MASKED)), case.images), "onnxruntime"
    ),
    "ONNX Runtime compacted": Candidate("ONNX Runtime", COMPACTED, _of_file(onnx_runtime, COMPACTED), "onnxruntime"),
    "OpenVINO dense": Candidate("OpenVINO", DENSE, _of_file(openvino, DENSE), "openvino"),
    "OpenVINO masked": Candidate("OpenVINO", MASKED, _of_file(openvino, MASKED), "openvino"),
    "OpenVINO sparse weights": Candidate("OpenVINO", MASKED, _of_file(openvino, MASKED, **RATED), "openvino"),
    "OpenVINO compacted": Candidate("OpenVINO", COMPACTED, _of_file(openvino, COMPACTED), "openvino"),
    "MNN dense": Candidate("MNN", DENSE, _of_file(mnn, DENSE, sparse=False), "MNN", tolerance=1e-3),
    "MNN masked": Candidate("MNN", MASKED, _of_file(mnn, MASKED, sparse=False), "MNN", tolerance=1e-3),
    "MNN sparse": Candidate("MNN", MASKED, _of_file(mnn, MASKED, sparse=True), "MNN", tolerance=1e-3),
    "MNN compacted": Candidate("MNN", COMPACTED, _of_file(mnn, COMPACTED, sparse=False), "MNN", tolerance=1e-3),
    "MNN compacted, sparse": Candidate("MNN", COMPACTED, _of_file(mnn, COMPACTED, sparse=True), "MNN", tolerance=1e-3),
}
