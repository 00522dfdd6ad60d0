"""Networks as checks look at them before anything starts: for the images they will see, where that is known without opening them."""

from typing import NamedTuple

from torch import nn

from autosparse.models.networks.build import build_network
from autosparse.models.specs.run_specs import DataSpec, NetworkSpec
from autosparse.storage.image_datasets import SIZES


class Images(NamedTuple):
    """What a network must know of a data set; `shape` is (channels, height, width)."""

    shape: tuple[int, int, int]
    classes: int
    known: bool = True


UNKNOWN = Images((3, 32, 32), 10, known=False)  # near enough for a data set that nobody has opened yet


def images_of(data: DataSpec) -> Images:
    """Those of a data set that is the same everywhere, else UNKNOWN, each in the size that is asked for."""
    (channels, *sides), classes, known = Images(*SIZES[data.name]) if data.name in SIZES else UNKNOWN
    height, width = sides if data.size is None else (data.size, data.size)
    return Images((channels, height, width), classes, known)


def build(network: NetworkSpec, images: Images) -> nn.Module:
    """The network as drawn from seed 0, tried on an image where those are known. Raises what `build_network` raises."""
    return build_network(network, image_shape=images.shape, num_classes=images.classes, seed=0, tried=images.known)
