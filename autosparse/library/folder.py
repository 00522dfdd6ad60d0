"""The folder of a pruned network: mask, initial weights and how the network is built; what `autosparse prune` writes.

mask.safetensors            one bool tensor per prunable weight
mask.weights.safetensors    the initial weights that the mask belongs to
network.json                the factory and its keywords, the shape of an image, the classes, the seed
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from autosparse.library.mask import Mask
from autosparse.library.mask_file import initial_weights
from autosparse.models.channels.examples import example_of
from autosparse.models.errors import DataError, SpecError, not_allowed
from autosparse.models.networks.build import build_network
from autosparse.models.networks.calls import Inputs
from autosparse.models.specs.json_object import JsonObject
from autosparse.models.specs.run_specs import NetworkSpec
from autosparse.models.training.own_task import find_task
from autosparse.storage.disk import disk_error

MASK, NETWORK = "mask.safetensors", "network.json"


@dataclass(frozen=True, kw_only=True)
class Built:
    """How a network was built."""

    network: str
    image_shape: tuple[int, int, int] | None  # None for a task of one's own
    num_classes: int | None
    seed: int
    keywords: Mapping[str, Any] = field(default_factory=dict)
    task: str | None = None  # package.module:task, and the path that it was given
    path: str | None = None

    def build(self) -> nn.Module:
        """The network again. Raises what `build_network` raises, and for a task of one's own what `find_task` raises."""
        spec = NetworkSpec(name=self.network, init="own", keywords=JsonObject.of("keywords", self.keywords))
        if self.task:
            own = find_task(self.task, self.path)
            return build_network(spec, image_shape=own.example, num_classes=None, seed=self.seed, given=own.keywords)
        return build_network(spec, image_shape=self.image_shape, num_classes=self.num_classes, seed=self.seed)

    def example(self) -> Inputs:
        """One image of noise, (1, channels, height, width), always the same; the example of a task of one's own."""
        return find_task(self.task, self.path).example if self.task else example_of(self.image_shape)


def check_out(out: Path) -> None:
    """Raise SpecError, before any work, for a folder that cannot be written or holds something else than a pruned network."""
    if out.is_file() or (out.is_dir() and any(out.iterdir()) and not (out / MASK).is_file()):
        raise not_allowed("--out", str(out), "a new or empty folder, or one of an earlier prune; a file ends in .safetensors")
    there = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise not_allowed("--out", str(out), "a folder that can be written")


def write_folder(out: Path, mask: Mask, network: nn.Module, built: Built) -> None:
    """Write the three files. Raises DataError where that fails."""
    text = json.dumps(asdict(built), indent=2)
    try:
        out.mkdir(parents=True, exist_ok=True)
        mask.save(out / MASK, weights=network)
        (out / NETWORK).write_text(text)
    except OSError as error:
        raise disk_error(out / NETWORK, error, len(text)) from error


def read_folder(folder: Path) -> tuple[nn.Module, Mask, Built]:
    """The network with its initial weights, its mask, and how it was built. Raises DataError for anything but such a folder."""
    try:
        found: Any = json.loads((folder / NETWORK).read_text())
        built = Built(**{**found, "image_shape": found["image_shape"] and tuple(found["image_shape"])})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(f"{folder}: no folder of 'autosparse prune' ({type(error).__name__}: {NETWORK})") from None
    network = built.build()
    try:
        network.load_state_dict(initial_weights(folder / MASK))
        mask = Mask.load(folder / MASK, network)
    except (RuntimeError, SpecError) as error:
        raise DataError(
            f"{folder}: the weights or the mask are not those of {built.network} ({str(error).splitlines()[-1].strip()})"
        ) from None
    return network, mask, built
