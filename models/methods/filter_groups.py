"""Groups of parameters that leave a network together: filters with the BatchNorm behind them, inputs of linear layers."""

from math import sqrt

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from autosparse.models.masks import mask as masks
from autosparse.models.methods.dual_averaging import Family
from autosparse.models.networks.calls import Shape
from autosparse.models.networks.look_through import look_through


def filter_groups(
    network: nn.Module, image_shape: Shape, *, head: bool = True, by_size: bool = False
) -> tuple[list[nn.Parameter], list[Family]]:
    """The parameters that are in a group, and their families, by places in that list.

    - Convolution: each filter with its bias, and with scale and shift of its channel in the BatchNorms that read the convolution.
      When the group is zero, the channel behind the BatchNorm is exactly zero, in training and in evaluation. What is added up in a
      residual network stays apart: each branch has the filters of its own last convolution, and a zero filter takes its branch out
      of the sum and no more.
    - Linear layer: the weights of each input. Its bias is in no group.
    - Classifier: by its inputs, also where it is a convolution, so that no class can vanish. Without `head` it is in no group.

    `by_size` gives a group the weight sqrt(size / mean size of all groups), as the group lasso does; otherwise all weights are 1.
    """
    prunable = masks.prunable(network, head=head)
    norms = norms_behind(network, image_shape)
    params: list[nn.Parameter] = []
    made: list[tuple[tuple[int, int], ...]] = []
    for name, layer in network.named_modules():
        weight = prunable.get(f"{name}.weight".lstrip("."))
        if weight is None:
            continue
        by_input = isinstance(layer, nn.Linear) or layer is _classifier(network)
        others = [] if by_input else [layer, *norms.get(layer, ())]
        together = [weight, *(param for module in others for param in module.parameters(recurse=False) if param is not weight)]
        made.append(tuple((len(params) + place, int(by_input)) for place in range(len(together))))
        params += together
    return params, _families(params, made, by_size)


def _families(params: list[nn.Parameter], made: list[tuple[tuple[int, int], ...]], by_size: bool) -> list[Family]:
    counts = [params[members[0][0]].shape[members[0][1]] for members in made]
    sizes = [sum(params[place].numel() for place, _ in members) / count for members, count in zip(made, counts, strict=True)]
    mean = sum(size * count for size, count in zip(sizes, counts, strict=True)) / sum(counts)
    return [Family(members=members, weight=sqrt(size / mean) if by_size else 1.0) for members, size in zip(made, sizes, strict=True)]


def _classifier(network: nn.Module) -> nn.Module:
    """The last linear layer, or the last convolution where there is none, as in `masks.prunable`."""
    linear = [module for module in network.modules() if isinstance(module, nn.Linear)]
    return (linear or [module for module in network.modules() if isinstance(module, masks.CONVOLUTIONS)])[-1]


def norms_behind(network: nn.Module, image_shape: Shape) -> dict[nn.Module, list[nn.Module]]:
    """The BatchNorms with scale and shift that read the very output of a convolution, by convolution.

    Found by one look through the network. A BatchNorm behind an addition, a concatenation or an activation is behind no convolution;
    one that reads several convolutions belongs to the first.
    """
    outputs: dict[int, tuple[Tensor, int, nn.Module]] = {}  # by id; the tensor is held, so that no other gets its id
    behind: dict[nn.Module, list[nn.Module]] = {}
    taken: set[nn.Module] = set()

    def made(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        outputs[id(output)] = (output, output._version, layer)

    def read(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        output, version, layer = outputs.get(id(inputs[0]), (None, 0, norm))
        if output is not None and output._version == version and norm not in taken:  # another version: changed in place since
            taken.add(norm)
            behind.setdefault(layer, []).append(norm)

    hooks = [module.register_forward_hook(made) for module in network.modules() if isinstance(module, masks.CONVOLUTIONS)]
    hooks += [module.register_forward_pre_hook(read) for module in network.modules() if isinstance(module, _BatchNorm) and module.affine]
    look_through(network, image_shape, hooks)
    return behind
