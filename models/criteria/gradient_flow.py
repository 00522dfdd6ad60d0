"""GraSP: keep the gradient flow through the pruned network."""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from autosparse.models.gradients import Batches, mean_gradients, mean_hessian_products
from autosparse.models.masks.mask import Scores, prunable

TEMPERATURE = 200.0


def grasp(network: nn.Module, batches: Batches, generator: torch.Generator, *, head: bool = True, density: float) -> Scores:
    """w * (H g): the weights whose removal would reduce the gradient norm are kept (Wang et al. 2020, arXiv 2002.07376).

    Sign: the official one. Removing weight q moves w by -w_q, which changes the squared gradient norm g . g by -2 w_q (H g)_q
    to first order. The authors' importance is S = -w * (H g), and their code (alecwangcq/GraSP) removes the weights of the
    *highest* S, whose removal raises the norm most; the score here is -S.

    H and g are those of the mean cross entropy over `batches`, with the logits divided by 200 in both passes as in the
    authors' code (which also draws the classifier anew by default; here it keeps its weights). BatchNorm uses batch statistics.
    """
    params = prunable(network, head=head)
    gradients = mean_gradients(network, batches, params, loss=softened_cross_entropy)
    products = mean_hessian_products(network, batches, params, gradients, loss=softened_cross_entropy)
    return {name: param.detach() * products[name] for name, param in params.items()}


def softened_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross entropy of logits divided by TEMPERATURE."""
    return cross_entropy(logits / TEMPERATURE, labels)
