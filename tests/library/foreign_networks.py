"""Networks as people bring them, for 8x8 grey images and 10 classes: each does one thing that has stopped a pruning library before."""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations, prune


def stack(
    act: type[nn.Module] = nn.ReLU, norm: Callable[[int], nn.Module] | None = None, widths: tuple[int, ...] = (16, 32)
) -> nn.Sequential:
    """3x3 convolutions, pooled, and a classifier."""
    layers: list[nn.Module] = []
    for before, after in zip((1, *widths), widths, strict=False):
        layers += [nn.Conv2d(before, after, 3, padding=1), *([norm(after)] if norm else []), act()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], 10))


class Wrapped(nn.Module):
    """A body, and what its forward function does with it."""

    def __init__(self, act: Callable[[Any, Tensor], Any], **modules: nn.Module | None) -> None:
        super().__init__()
        for name, module in modules.items():
            self.add_module(name, module)
        self.act = act

    def forward(self, x: Tensor) -> Any:
        """What `act` makes of the images."""
        return self.act(self, x)


def rows(images: Tensor) -> Tensor:
    """(n, 8, 8): the rows of an image as tokens."""
    return images.permute(0, 2, 1, 3).flatten(2)


def views() -> nn.Module:
    return Wrapped(
        lambda self, x: self.out((y := functional.max_pool2d(self.conv(x).relu(), 2)).view(y.size(0), -1)),
        conv=nn.Conv2d(1, 6, 3, padding=1),
        out=nn.Linear(96, 10),
    )


def frozen() -> nn.Module:
    network = stack()
    network[0].requires_grad_(False)
    return network


def spare() -> nn.Module:
    return Wrapped(lambda self, x: self.body(x), spare=nn.Linear(10, 10), body=stack())


def relu6() -> nn.Module:
    return stack(nn.ReLU6, widths=(32, 64, 64))


def plain_relu() -> nn.Module:
    return stack(nn.ReLU, widths=(32, 64, 64))


def group_norm() -> nn.Module:
    return stack(norm=lambda width: nn.GroupNorm(4, width), widths=(32, 64, 64))


def pins_float() -> nn.Module:
    return Wrapped(lambda self, x: self.body(x.float()), body=stack())


def recurrent(kind: type[nn.RNNBase]) -> nn.Module:
    def act(self: Any, x: Tensor) -> Tensor:
        start = torch.zeros(1, len(x), 16, device=x.device)
        return self.out(self.rnn(rows(x), (start, start) if kind is nn.LSTM else start)[0][:, -1])

    return Wrapped(act, rnn=kind(8, 16, batch_first=True), out=nn.Linear(16, 10))


def spectral() -> nn.Module:
    network = stack()
    parametrizations.spectral_norm(network[2])
    return network


def weight_normed() -> nn.Module:
    network = stack()
    parametrizations.weight_norm(network[2])
    return network


def pruned_before() -> nn.Module:
    network = stack()
    prune.l1_unstructured(network[2], "weight", amount=0.5)
    return network


def packed_attention() -> nn.Module:
    def act(self: Any, x: Tensor) -> Tensor:
        tokens = self.embed(rows(x))
        tokens = tokens + self.attention(tokens, tokens, tokens, need_weights=False)[0]
        return self.out(functional.gelu(self.proj(tokens)).mean(1))

    attention = nn.MultiheadAttention(32, 4, batch_first=True)
    return Wrapped(act, embed=nn.Linear(8, 32), attention=attention, proj=nn.Linear(32, 32), out=nn.Linear(32, 10))


def function_attention() -> nn.Module:
    def act(self: Any, x: Tensor) -> Tensor:
        tokens = self.embed(rows(x))
        q, k, v = self.qkv(tokens).unflatten(-1, (3, 4, 8)).permute(2, 0, 3, 1, 4)
        tokens = tokens + functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return self.out(functional.gelu(self.proj(tokens)).mean(1))

    return Wrapped(act, embed=nn.Linear(8, 32), qkv=nn.Linear(32, 96), proj=nn.Linear(32, 32), out=nn.Linear(32, 10))


def gives_dict() -> nn.Module:
    return Wrapped(lambda self, x: {"logits": self.body(x)}, body=stack())


def gives_pair_in_training() -> nn.Module:
    return Wrapped(lambda self, x: (self.body(x), 0) if self.training else self.body(x), body=stack())


def half() -> nn.Module:
    return stack().to(torch.bfloat16)


def lazy() -> nn.Module:
    return nn.Sequential(nn.LazyConv2d(16, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.LazyLinear(10))


def data_parallel() -> nn.Module:
    return nn.DataParallel(stack())


def head_first() -> nn.Module:
    return Wrapped(lambda self, x: self.head(self.body(x)), head=nn.Linear(16, 10), body=nn.Sequential(*stack(widths=(16,))[:-1]))


def tied() -> nn.Module:
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    network[3].weight = network[1].weight  # type: ignore[union-attr]
    return network


def transposed() -> nn.Module:
    body = (nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.ReLU(), nn.ConvTranspose2d(8, 6, 2, stride=2), nn.ReLU())
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 10))


def own_matrix() -> nn.Module:
    """Multiplies by a parameter of its own, which no layer of torch holds, and adds one."""
    network = Wrapped(lambda self, x: self.out(torch.matmul(x.flatten(1), self.mix).relu() + self.shift), out=nn.Linear(32, 10))
    network.mix, network.shift = nn.Parameter(torch.randn(64, 32) / 8), nn.Parameter(torch.zeros(1, 32))  # type: ignore[assignment]
    return network


def zero_head() -> nn.Module:
    network = stack(widths=(32, 64))
    nn.init.zeros_(network[-1].weight)  # type: ignore[arg-type]
    return network


KINDS: dict[str, Callable[[], nn.Module]] = {
    **{one.__name__: one for one in (views, frozen, spare, relu6, plain_relu, group_norm, pins_float, spectral, pruned_before)},
    **{one.__name__: one for one in (packed_attention, function_attention, gives_dict, gives_pair_in_training, half, lazy)},
    **{one.__name__: one for one in (data_parallel, head_first, tied, transposed, own_matrix, zero_head)},
    "lstm": lambda: recurrent(nn.LSTM),
    "gru": lambda: recurrent(nn.GRU),
    "rnn": lambda: recurrent(nn.RNN),
}


# What the pipeline and the command line are given: factories, a module, what they cannot use.


def five(image_shape: tuple[int, int, int]) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(image_shape[1] * image_shape[2], 5))


def keywords(**given: Any) -> nn.Module:
    """As functools.partial(timm.create_model, ...) looks from outside."""
    unknown = set(given) - {"num_classes"}
    if unknown:
        raise TypeError(f"unexpected {unknown}")
    return nn.Sequential(nn.Flatten(), nn.Linear(64, given.get("num_classes", 1000)))


ready_made = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


def from_checkpoint() -> nn.Module:
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))
    nn.init.constant_(network[1].weight, 0.125)  # type: ignore[arg-type]
    return network


def numpy_init() -> nn.Module:
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    with torch.no_grad():
        network[1].weight.copy_(torch.from_numpy(np.random.normal(0, 0.1, (10, 64))))  # type: ignore[union-attr]
        network[1].bias.fill_(random.random())  # type: ignore[union-attr]
    return network


def norm_of_one_image(num_classes: int) -> nn.Module:
    body = (nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(16))
    return nn.Sequential(*body, nn.Linear(16, num_classes))


def raises(image_shape: tuple[int, int, int]) -> nn.Module:
    def act(self: Any, x: Tensor) -> Tensor:
        return self.body(x)[:, "no such column"]

    return Wrapped(act, body=stack())
