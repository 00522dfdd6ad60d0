"""NTK-SAP: keep what the spectrum of the neural tangent kernel depends on, without data (Wang et al. 2023, arXiv 2304.02840)."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from autosparse.models.criteria.iterative import ranks_of_death
from autosparse.models.errors import not_allowed
from autosparse.models.gradients import Batches
from autosparse.models.masks.mask import Mask, Scores, prunable
from autosparse.models.masks.reparametrized import copied
from autosparse.models.networks.calls import Inputs, answer, inputs_of, mapped

ITERATIONS = 20
EPSILON = 0.01  # standard deviation of the perturbation, on the scale of the weights


def ntk_sap(network: nn.Module, batches: Batches, generator: torch.Generator, *, head: bool = True, density: float) -> Scores:
    """|dR/dm| in 20 iterations on the exponential schedule; scores are ranks of death (`ranks_of_death`).

    R = E ||f(x; m * w) - f(x; m * (w + eps * z))||^2, z standard normal and eps = 0.01, is to first order eps^2 times the trace
    of the kernel (its nuclear norm) under the mask m. Each term of the sum has new weights w, new z and new Gaussian inputs x of
    an image batch's shape: of `batches` only number and shapes count, of the network's weights only each layer's root mean square.

    As in the authors' code (YiteWang/NTK-SAP): both passes have BatchNorm at the statistics of the inputs under the unperturbed
    weights, held fixed; z moves prunable weights alone; the sum is over images, and its absolute value is taken last. Deviations:
    - Weights are drawn from a normal distribution with the root mean square of the layer in `network`, which is the same for
      any normal init and close to it for others; the authors call their network's own init, which is not known here. Biases and
      norms keep their values. Zero weights stay zero.
    - One draw for each of `batches` and iteration. The authors' sample script for ResNet-20 has 20 iterations, 5 draws (R) and
      eps 0.01; the numbers of the paper's tables may be others [unverified].
    - Dropout is off.
    Raises SpecError without a batch.
    """
    if not batches:
        raise not_allowed("batches", len(batches), ">= 1")
    params = prunable(network, head=head)
    spread = {name: param.detach().square().mean().sqrt() for name, param in prunable(network).items()}
    runner = copied(network).eval()
    for norm in _norms(runner):
        norm.momentum = 1.0  # running statistics = those of the last inputs

    def normal_like(tensor: Tensor) -> Tensor:
        return torch.randn(tensor.shape, generator=generator, device=generator.device, dtype=tensor.dtype).to(tensor.device)

    def drawn_like(tensor: Tensor) -> Tensor:
        return normal_like(tensor) if tensor.is_floating_point() else tensor  # indices stay what they are

    def score_at(alive: Mask) -> Scores:
        totals = {name: torch.zeros_like(param, requires_grad=False) for name, param in params.items()}
        for inputs in map(inputs_of, batches):
            weights = {name: normal_like(param) * spread[name] for name, param in prunable(network).items()}
            noise = {name: EPSILON * normal_like(param) for name, param in params.items()}
            for name, slope in response_slopes(runner, alive, weights, noise, mapped(drawn_like, inputs)).items():
                totals[name] += slope
        return {name: total.abs() for name, total in totals.items()}

    return ranks_of_death(score_at, params, ITERATIONS, density)


def response_slopes(
    runner: nn.Module, mask: Mask, weights: Mapping[str, Tensor], noise: Mapping[str, Tensor], inputs: Inputs
) -> dict[str, Tensor]:
    """dR/dm at `mask`, R the sum over inputs of ||f(x; m * w) - f(x; m * (w + noise))||^2.

    `runner` is in eval mode, its BatchNorms have momentum 1 and take over the statistics of `inputs` under m * w. `weights` may
    name more parameters than `mask`: those are whole, and the same in both passes.
    """
    gates = {name: keep.to(weights[name].dtype).requires_grad_() for name, keep in mask.items()}
    with torch.enable_grad():
        plain = {**weights, **{name: weights[name] * gate for name, gate in gates.items()}}
        moved = {**weights, **{name: (weights[name] + noise[name]) * gate for name, gate in gates.items()}}
        _take_statistics(runner, plain, inputs)
        response = (answer(runner, plain, inputs) - answer(runner, moved, inputs)).square().sum()
        slopes = torch.autograd.grad(response, list(gates.values()), materialize_grads=True)
    return dict(zip(gates, slopes, strict=True))


@torch.no_grad()
def _take_statistics(runner: nn.Module, weights: Mapping[str, Tensor], inputs: Inputs) -> None:
    norms = _norms(runner)
    if not norms:
        return
    for norm in norms:
        norm.train()
    answer(runner, weights, inputs)
    for norm in norms:
        norm.eval()


def _norms(network: nn.Module) -> list[_BatchNorm]:
    return [module for module in network.modules() if isinstance(module, _BatchNorm)]
