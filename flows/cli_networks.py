"""The commands about one network: prune, inspect, compact, export. Each imports what it needs when it is called."""

from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from autosparse.flows.assignments import Flag, Json

Place = Annotated[Path, Parameter(help="a folder of `autosparse prune`, or the name of a run")]
Arm = Annotated[str | None, Parameter(help="of a run: [TARGET/]METHOD[+CONTROL][@DENSITY][#SEED], e.g. synflow@0.05#10")]


def prune(
    network: str,
    *,
    density: float,
    data: str,
    out: Path,
    method: str | None = None,
    cost: Literal["latency"] | None = None,
    scorer: str | None = None,
    batches: int = 10,
    batch_size: int = 256,
    min_per_layer: int = 0,
    ignore: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    keyword: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    seed: int = 0,
    details: Flag = False,
) -> None:
    """Prune your own torch network at initialization, by any method or a fitted scorer, outside any flow.

    Parameters
    ----------
    network
        `package.module:factory`, called without arguments or with num_classes and image_shape where it takes them; or
        `torchvision:NAME`, `timm:NAME`, `hf:NAME` (docs/networks.md).
    density
        Kept share of the prunable weights, in (0, 1]; with grain=channels in the method's name, of the cost that it names.
    data
        A data set by name, a folder (local or s3://) of Parquet files or pictures, or a task of your own, package.module:task.
    out
        A folder for the mask, the initial weights that it belongs to, and how the network is built; or a file that ends in
        .safetensors for the mask alone: one bool tensor per layer, true = kept.
    method
        A criterion by name (docs/methods.md) or package.module:function; synflow where there is no --scorer.
    cost
        latency: the density is a share of the dense network's time for one example, on this machine, by whole channels:
        --method "erk(grain=channels)".
    scorer
        `models:/autosparse-scorer@champion`, or a folder (local or s3://) with scorer.json and scorer.safetensors.
    batches
        How many batches of training images the gradients are averaged over.
    batch_size
        Images per batch.
    min_per_layer
        At least so many weights stay in each layer.
    ignore
        A pattern of names of layers that stay dense, e.g. `blocks.0.*`; may be repeated.
    keyword
        One of the factory's own, e.g. depth=3; may be repeated.
    seed
        Draws the network and chooses the images.
    details
        Where a scorer's training differed from this network, feature by feature.
    """
    from autosparse.flows.prune_command import prune_network

    options: dict[str, Any] = {"cost": cost, "batches": batches, "batch_size": batch_size, "min_per_layer": min_per_layer, "seed": seed}
    prune_network(network, scorer, density, data, out, method=method, ignore=ignore, keywords=keyword, details=details, **options)


def inspect(place: Place, arm: Arm = None, *, json_: Json = False) -> None:
    """What a mask keeps, layer by layer: shape, weights, density, multiply-adds; what is not prunable."""
    from autosparse.flows.network_commands import print_inspected

    print_inspected(place, arm, as_json=json_)


def compact(place: Place, arm: Arm = None, *, out: Path) -> None:
    """A smaller network, the same function: without the channels that a mask cut off. Writes ONNX, safetensors and what it saved.

    Parameters
    ----------
    out
        A new folder.
    """
    from autosparse.flows.network_commands import write_compacted

    write_compacted(place, arm, out)


def export(place: Place, arm: Arm = None, *, out: Path) -> None:
    """A pruned network in a file for other programs.

    Parameters
    ----------
    out
        A file: .onnx, .safetensors or .pt2 (torch.export).
    """
    from autosparse.flows.network_commands import write_exported

    write_exported(place, arm, out)
