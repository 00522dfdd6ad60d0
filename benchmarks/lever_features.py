"""What could be known of a weight at initialization, in groups of columns: those of the product and candidates for more."""

import torch
from torch import Tensor, nn

from autosparse.models.criteria.synaptic_flow import flow
from autosparse.models.features import feature_matrix, layer_facts
from autosparse.models.gradients import Batches, mean_gradients, mean_hessian_products
from autosparse.models.masks.linearised import linearised
from autosparse.models.masks.mask import Mask, apply_, prunable

RAW_COLUMNS = 2  # of the product's features: unnormalised, no scorer but the paper's sees them
HESSIAN_BATCHES = 4
SPREADS = 6.0
FAINT = 1e-12

Groups = dict[str, Tensor]  # each (n, columns) float32, the weights of one layer that the mask keeps


def groups_of(network: nn.Module, batches: Batches, mask: Mask | None) -> dict[str, Groups]:
    """Per layer: "product", "noise" (of the gradient over batches), "hessian" (H g), "flow" (SynFlow's, beside the weight), "means"
    (over channels and kernel), "place" (in the kernel). What `mask` does not keep is set to zero in `network`."""
    if mask:
        apply_(network, mask)
    params = prunable(network)
    keep = mask or {name: torch.ones_like(param, dtype=torch.bool) for name, param in params.items()}
    each = [mean_gradients(network, [batch], params) for batch in batches]
    per_batch = {name: torch.stack([found[name] for found in each]) * keep[name] for name in params}
    gradients = {name: values.mean(0) for name, values in per_batch.items()}
    bent = mean_hessian_products(network, batches[:HESSIAN_BATCHES], params, gradients)
    linear = linearised(network)
    paths = flow(linear, {name: param for name, param in linear.named_parameters() if name in params}, torch.ones(1, 3, 32, 32).double())
    facts = {layer.name: layer for layer in layer_facts(params, gradients)}
    found = {}
    for name, param in params.items():
        weight, gradient, kept = param.detach(), gradients[name], keep[name]
        columns = {
            "product": list(feature_matrix(weight.reshape(-1), gradient.reshape(-1), facts[name])[:, RAW_COLUMNS:].unbind(1)),
            "noise": _noise(per_batch[name], gradient),
            "hessian": _hessian(bent[name], gradient, weight, kept),
            "flow": [_beside(paths[name].float(), weight, kept)],
            "means": _means(weight, gradient, kept),
            "place": [_place(weight)],
        }
        found[name] = {
            group: torch.stack([column.reshape(-1)[kept.reshape(-1)].float() for column in listed], 1) for group, listed in columns.items()
        }
    return found


def _size(values: Tensor) -> Tensor:
    return values.square().mean().sqrt().clamp(min=FAINT)


def _noise(per_batch: Tensor, gradient: Tensor) -> list[Tensor]:
    spread = per_batch.std(0)
    return [(gradient.abs() / (spread + 0.01 * _size(spread) + FAINT)).log1p(), (spread / _size(spread)).clamp(min=1e-3).log()]


def _hessian(bent: Tensor, gradient: Tensor, weight: Tensor, kept: Tensor) -> list[Tensor]:
    scaled = bent / _size(bent[kept])
    shown = (scaled, scaled * weight.sign(), scaled * gradient / _size(gradient[kept]))
    return [column.clamp(-SPREADS, SPREADS) for column in shown]


def _beside(flow: Tensor, weight: Tensor, kept: Tensor) -> Tensor:
    beside = torch.where(kept, flow / weight.abs().clamp(min=FAINT), 1.0)
    return (beside / beside[kept].mean().clamp(min=1e-30) + 1e-6).log()


def _means(weight: Tensor, gradient: Tensor, kept: Tensor) -> list[Tensor]:
    """Means of kept weights over output channel, input channel and kernel, each as large as the layer."""
    w, g = weight / _size(weight[kept]), gradient / _size(gradient[kept])
    kernel = tuple(range(2, weight.ndim))
    shown = {(1, *kernel): (g.square(), w.abs(), g * w, -g * w.sign()), (0, *kernel): (g.square(), w.abs(), g * w, -g * w.sign())}
    columns = [_mean(values, kept, dims) for dims, listed in shown.items() for values in listed]
    return columns + [_mean(values, kept, kernel) if kernel else values for values in (g.square(), w.abs(), g * w)]


def _mean(values: Tensor, kept: Tensor, dims: tuple[int, ...]) -> Tensor:
    count = kept.sum(dims, keepdim=True).clamp(min=1)
    return ((values * kept).sum(dims, keepdim=True) / count).expand_as(values)


def _place(weight: Tensor) -> Tensor:
    """How far from the middle of a 3x3 kernel: 0 = middle, 1 = edge, 2 = corner; 0 in every other layer."""
    if weight.shape[2:] != (3, 3):
        return torch.zeros_like(weight)
    off = torch.tensor([1.0, 0.0, 1.0])
    return (off[:, None] + off[None, :]).expand_as(weight)
