"""HASTE: channels of a patch that hash alike share one slice of a convolution, at inference (arXiv 2309.17211)."""

import copy
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from autosparse.models.errors import not_allowed
from autosparse.models.methods.contract import Method, Parts, Settings, Setup
from autosparse.models.specs.rules import Range

TILE = 3  # a patch of side K + 2 gives 3 x 3 outputs
CHUNK = 2**22  # numbers in the patches that are merged at a time: 16 MiB

Centre = Literal["none", "channel_mean", "self_mean"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Haste(Settings):
    """`bits` L of a hash code; `zeros` s, the share of zeros in its random projections, 2/3 for small and 1/2 for large images.

    `center`, what is taken off the channels of a patch before hashing: their mean over channels at each pixel, or each channel's
    own mean. `first` counts all convolutions in module order from 0, the stem; those before it stay as they are.
    """

    bits: Annotated[int, Range(least=1, most=62)] = 14
    zeros: Annotated[float, Range(least=0, below=1)] = 2 / 3
    center: Centre = "channel_mean"
    first: Annotated[int, Range(least=0)] = 1


def draw_projections(bits: int, side: int, zeros: float, generator: torch.Generator) -> Tensor:
    """Very sparse random projections, float32 (bits, side * side): 0 with probability `zeros`, else +1 or -1 alike."""
    uniform = torch.rand(bits, side * side, generator=generator)
    return (uniform >= zeros).float() * torch.where(uniform >= (1 + zeros) / 2, 1.0, -1.0)


def hash_codes(rows: Tensor, projections: Tensor, center: Centre) -> Tensor:
    """Codes, int64 (patches, C), of the channels of patches (patches, C, side * side): bit l says whether <V_l, row> > 0."""
    if center == "channel_mean":
        rows = rows - rows.mean(1, keepdim=True)
    elif center == "self_mean":
        rows = rows - rows.mean(2, keepdim=True)
    with torch.autocast(rows.device.type, enabled=False):
        signs = functional.linear(rows.to(projections.dtype), projections) > 0
    return (signs.long() << torch.arange(len(projections), device=rows.device)).sum(2)


def buckets(codes: Tensor) -> tuple[Tensor, Tensor]:
    """Numbers from 0 of the buckets of equal codes within each patch, int64 (patches, C), and how many there are, (patches,)."""
    ordered, order = codes.sort(dim=1, stable=True)
    begins = functional.pad(ordered[:, 1:] != ordered[:, :-1], (1, 0))
    numbers = begins.cumsum(1)
    return torch.zeros_like(codes).scatter_(1, order, numbers), numbers[:, -1] + 1


def merge(rows: Tensor, numbers: Tensor) -> Tensor:
    """Patches (patches, C, pixels) with each channel replaced by the mean of its bucket, same shape.

    The convolution of this equals the convolution of the C~ bucket means with the sums of the filter slices of each bucket.
    """
    where = numbers[..., None].expand_as(rows)
    sizes = torch.zeros_like(rows[..., 0]).scatter_add_(1, numbers, torch.ones_like(rows[..., 0]))
    sums = torch.zeros_like(rows).scatter_add_(1, where, rows)
    return (sums / sizes.clamp(min=1)[..., None]).gather(1, where)


class MergedConv2d(nn.Conv2d):
    """A convolution that merges channels patch by patch, and counts what that would have cost at the smaller depth.

    It has the parameters of the convolution it stands for, under their names; its projections are no part of the state dict.
    """

    projections: Tensor

    def __init__(self, dense: nn.Conv2d, settings: Haste, generator: torch.Generator) -> None:
        kernel, _ = dense.kernel_size
        bias = dense.bias is not None
        super().__init__(dense.in_channels, dense.out_channels, kernel, padding=dense.padding, bias=bias, device="meta")  # type: ignore
        self.weight, self.bias = dense.weight, dense.bias
        self.side = kernel + TILE - 1
        self.center: Centre = settings.center
        drawn = draw_projections(settings.bits, self.side, settings.zeros, generator)
        self.register_buffer("projections", drawn.to(dense.weight), persistent=False)
        self.reset()

    def reset(self) -> None:
        """Forget what was counted."""
        self.images, self.tiles = 0, 0
        self.depth, self.depth_by_outputs = 0, 0  # sums over tiles of C~, and of C~ times the tile's outputs
        self.outputs = 0

    def forward(self, images: Tensor) -> Tensor:
        """Images (n, C, H, W) to (n, out, H', W'), as the convolution that it stands for."""
        pixels = images.shape[2] * images.shape[3] * self.in_channels * self.side**2 // TILE**2
        return torch.cat([self._merged(chunk) for chunk in images.split(max(1, CHUNK // pixels))])

    def _merged(self, images: Tensor) -> Tensor:
        images = images.to(self.weight.dtype)  # means of half precision would lose what they merge
        down, right = int(self.padding[0]), int(self.padding[1])
        height, width = (size + 2 * pad - self.kernel_size[0] + 1 for size, pad in zip(images.shape[2:], (down, right), strict=True))
        rest = (-height % TILE, -width % TILE)  # the last tiles reach beyond the image, into zeros
        padded = functional.pad(images, (right, right + rest[1], down, down + rest[0]))
        tiles = padded.unfold(2, self.side, TILE).unfold(3, self.side, TILE).permute(0, 2, 3, 1, 4, 5)
        rows = tiles.reshape(-1, self.in_channels, self.side**2)
        numbers, depth = buckets(hash_codes(rows, self.projections, self.center))
        self._count(len(images), depth, height, width)
        merged = merge(rows, numbers).unflatten(2, (self.side, self.side))
        outputs = functional.conv2d(merged, self.weight, self.bias)
        grid = outputs.view(*tiles.shape[:3], self.out_channels, TILE, TILE).permute(0, 3, 1, 4, 2, 5)
        return grid.flatten(4).flatten(2, 3)[:, :, :height, :width]

    def _count(self, images: int, depth: Tensor, height: int, width: int) -> None:
        tall, wide = (_extents(size, depth.device) for size in (height, width))
        inside = tall[:, None] * wide  # outputs of a tile that are within the image
        self.images += images
        self.tiles += len(depth)
        self.outputs += images * height * width
        self.depth = self.depth + depth.sum()
        self.depth_by_outputs = self.depth_by_outputs + (depth.view(images, -1) * inside.flatten()).sum()

    def cost(self) -> dict[str, float]:
        """Per image of those seen since the last `reset`: kept depth C~ / C, mean over tiles, and multiply-adds.

        `dense` is the convolution as it was, `conv` that at the kept depth; adds count as multiply-adds: `center` of taking means
        off, `hash`, `merge_inputs`, `merge_filters`. Outputs of a tile beyond the image cost no convolution.
        """
        images, tiles, depth = max(self.images, 1), max(self.tiles, 1), float(self.depth)
        area, slice_cost = self.side**2, self.kernel_size[0] ** 2 * self.out_channels
        gone = (self.in_channels * self.tiles - depth) / images
        centred = 2 * self.tiles * self.in_channels * area / images if self.center != "none" else 0.0
        parts = {
            "center": centred,
            "hash": self.tiles / images * self.in_channels * float(self.projections.count_nonzero()),
            "merge_inputs": gone * area,
            "merge_filters": gone * slice_cost,
            "conv": float(self.depth_by_outputs) / images * slice_cost,
        }
        dense = self.outputs / images * self.in_channels * slice_cost
        return {"kept_depth": depth / tiles / self.in_channels, "dense": dense, "merged": sum(parts.values()), **parts}


def _extents(size: int, device: torch.device) -> Tensor:
    """How many of `size` outputs fall to each tile along one side."""
    whole, rest = divmod(size, TILE)
    return torch.tensor([TILE] * whole + [rest] * (rest > 0), device=device)


def cost(network: nn.Module) -> dict[str, Any]:
    """What the merged convolutions of a rewritten network cost, over the images it has seen since `reset`, in any mode.

    `layers`: name -> `MergedConv2d.cost`; `images` seen; `dense` and `merged`, multiply-adds per image of these layers together;
    `kept_depth`, mean over them by their dense cost. The other layers cost what `networks.flops.forward_macs` says of the
    trained network. These are counts: the merging takes longer than what it saves where nothing is written for it.
    """
    merged = {name: module for name, module in network.named_modules() if isinstance(module, MergedConv2d)}
    layers = {name: module.cost() for name, module in merged.items()}
    dense = sum(layer["dense"] for layer in layers.values())
    return {
        "images": max((module.images for module in merged.values()), default=0),
        "kept_depth": sum(layer["kept_depth"] * layer["dense"] for layer in layers.values()) / max(dense, 1),
        "dense": dense,
        "merged": sum(layer["merged"] for layer in layers.values()),
        "layers": layers,
    }


def reset(network: nn.Module) -> None:
    """Let every merged convolution of a network forget what it has counted."""
    for module in network.modules():
        if isinstance(module, MergedConv2d):
            module.reset()


def replaceable(network: nn.Module, first: int) -> list[str]:
    """Names of the convolutions from number `first` on that can merge channels: square, stride 1, undilated, one group, padded by
    zeros and by a number."""
    convolutions = [(name, module) for name, module in network.named_modules() if isinstance(module, nn.Conv2d)]
    return [name for name, module in convolutions[first:] if _fits(module)]


def _fits(module: nn.Conv2d) -> bool:
    plain = module.stride == (1, 1) and module.dilation == (1, 1) and module.groups == 1
    square = module.kernel_size[0] == module.kernel_size[1]
    return plain and square and module.padding_mode == "zeros" and not isinstance(module.padding, str)


def rewrite(network: nn.Module, generator: torch.Generator, settings: Haste) -> nn.Module:
    """A copy of a trained network with its replaceable convolutions merging; projections are drawn in module order.

    Raises SpecError where there is nothing to replace.
    """
    if reason := _lacks(network, settings):
        raise not_allowed("network", type(network).__name__, reason)
    rewritten = copy.deepcopy(network)
    for name in replaceable(rewritten, settings.first):
        parent, _, child = name.rpartition(".")
        dense = rewritten.get_submodule(name)
        assert isinstance(dense, nn.Conv2d)
        setattr(rewritten.get_submodule(parent), child, MergedConv2d(dense, settings, generator).train(dense.training))
    return rewritten


def _lacks(network: nn.Module, settings: Haste) -> str | None:
    found = replaceable(network, settings.first)
    return None if found else f"a network with a square ungrouped convolution of stride 1 from convolution {settings.first} on"


def _refuses(setup: Setup, settings: Haste) -> str | None:
    reason = _lacks(setup.network, settings)
    return str(not_allowed("network", type(setup.network).__name__, reason)) if reason else None


def _parts(setup: Setup, settings: Haste) -> Parts:
    return Parts(rewrite=lambda network, generator: rewrite(network, generator, settings), cost=_merged_macs)


def _merged_macs(network: nn.Module) -> dict[str, float]:
    """Multiply-adds per image of the merged convolutions, over the images they have seen, by the names of their weights."""
    return {f"{name}.weight": layer["merged"] for name, layer in cost(network)["layers"].items()}


HASTE = Method(
    settings=Haste,
    levels=(Haste(bits=6), Haste(bits=10), Haste()),
    by_density=False,
    parts=_parts,
    refuses=_refuses,
    card=(
        "Trained as ever, rewritten for inference: no weight is gone, depth is saved per patch. Merging, patch size for K = 3 and s as "
        "the authors describe them; the bits of a code, the centring and kernels other than 3 x 3 are reconstructions. Convolutions "
        "with stride stay dense. Costs are counts; in eager PyTorch it is slower than the dense network. BatchNorm keeps its statistics."
    ),
)
