"""The only import of torchvision, made possible beside a torch that its compiled extension was not built for."""

from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from types import ModuleType

import torch

_lock = Lock()
_operators: list[torch.library.Library] = []  # an operator is gone when its library object is


def import_torchvision() -> ModuleType:
    """The torchvision package: models, data sets and transforms work, its compiled operators only where the extension loads.

    Without them the package cannot even be imported, because it registers gradients and shapes for the operators of detection
    networks. Their schemas are all that this needs, so those are declared first.
    """
    with _lock:
        if not _operators and not _extension_loads():
            library = torch.library.Library("torchvision", "DEF")
            for name in ("nms", "qnms"):
                library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            _operators.append(library)
        import torchvision
    return torchvision


def _extension_loads() -> bool:
    package = find_spec("torchvision")
    for folder in (package and package.submodule_search_locations) or ():
        for path in Path(folder).glob("_C*"):
            try:
                torch.ops.load_library(str(path))
            except OSError:
                return False
    return hasattr(torch.ops.torchvision, "nms")
