"""One step of training, in the order of `autosparse.models.methods.contract`."""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from autosparse.models import seeding
from autosparse.models.errors import DivergedError, not_allowed
from autosparse.models.methods.contract import StepInfo
from autosparse.models.networks.calls import mapped, tensors_in
from autosparse.models.specs.run_specs import JobSpec
from autosparse.models.training.mixup import mixed
from autosparse.models.training.trainer import Trainer

GPU_LOSS_CHECK_STEPS = 50  # reading the loss waits for the device


def train_step(trainer: Trainer, batch: Any, rates: tuple[float, float]) -> Tensor:
    """One step at (learning rate, momentum) of a network in train mode, in the order of `autosparse.models.methods.contract`; the mean loss
    over all ranks."""
    parts, draws = trainer.parts, seeding.generator(trainer.seed, "method", trainer.step)
    trainer.set_rates(*rates)
    for transform in parts.transforms:
        transform.sample(draws)
    loss = _fill_gradients(trainer, batch, draws)
    if trainer.rank.count > 1:
        dist.all_reduce(loss)
        loss = loss / trainer.rank.count
    if trainer.device.type == "cpu" or trainer.step % GPU_LOSS_CHECK_STEPS == 0:
        finite(trainer, float(loss))
    if parts.schedule or parts.controllers:
        info = StepInfo(
            step=trainer.step,
            total=trainer.spec.epochs * trainer.steps_per_epoch,
            steps_per_epoch=trainer.steps_per_epoch,
            lr=rates[0],
            loss=float(loss),
        )
        if not parts.schedule or not parts.schedule.due(info) or _change_mask(trainer, info, draws):
            _move(trainer)
        for controller in parts.controllers:
            controller.after_step(info)
    else:
        _move(trainer)
    return loss


def _fill_gradients(trainer: Trainer, batch: Any, draws: torch.Generator) -> Tensor:
    for optimizer in (trainer.optimizer, *trainer.parts.own):
        optimizer.zero_grad(set_to_none=True)
    if trainer.parts.gradient:
        images, labels = batch  # methods that replace the gradient know nothing else
        return trainer.parts.gradient.fill(trainer.network, images, labels, draws)
    if trainer.spec.mixup:
        batch = mixed(batch, trainer.spec.mixup, trainer.seed, trainer.step)
    losses, pieces = [], split(batch, trainer.spec.accumulate)
    for piece in pieces:
        last = piece is pieces[-1]
        with _gradients_of_all_ranks(trainer.forward, last=last):
            with autocast(trainer.job, trainer.device):
                loss = trainer.objective.loss(trainer.forward, piece)
                terms = [controller.loss_term() for controller in trainer.parts.controllers] if last else []
            sum((term for term in terms if term is not None), start=loss / len(pieces)).backward()
        losses.append(loss.detach().float())
    return torch.stack(losses).mean()


def split(batch: Any, count: int) -> Sequence[Any]:
    """The batch in so many parts of one size. Raises SpecError where its tensors do not all begin with the examples."""
    if count == 1:
        return [batch]
    sizes = {len(tensor) for tensor in tensors_in(batch) if tensor.dim()}
    if len(sizes) != 1 or (size := sizes.pop()) % count:
        raise not_allowed("train.accumulate", count, "1 for batches whose tensors do not all begin with one number of examples")
    part = size // count
    cuts = [slice(start, start + part) for start in range(0, size, part)]
    return [mapped(lambda tensor, cut=cut: tensor[cut] if tensor.dim() else tensor, batch) for cut in cuts]


def _gradients_of_all_ranks(forward: nn.Module, *, last: bool) -> AbstractContextManager[Any]:
    """Ranks exchange their gradients once in a step, with its last part."""
    if last or not isinstance(forward, nn.parallel.DistributedDataParallel):
        return nullcontext()
    return forward.no_sync()


def _change_mask(trainer: Trainer, info: StepInfo, draws: torch.Generator) -> bool:
    schedule = trainer.parts.schedule
    assert schedule is not None
    steps = schedule.update(trainer.network, trainer.optimizer, info, draws)
    trainer.hold(schedule.mask)
    return steps


def _move(trainer: Trainer) -> None:
    """Zero the gradients of masked weights, clip and step: the wrapper or the optimizer, then the optimizers of a method's own."""
    if trainer.held:
        torch._foreach_mul_([parameter.grad for parameter, _ in trainer.held], [keep for _, keep in trainer.held])  # type: ignore
    if trainer.spec.clip is not None:
        moved = [parameter for group in trainer.optimizer.param_groups for parameter in group["params"]]
        nn.utils.clip_grad_norm_(moved, trainer.spec.clip)
    if trainer.parts.wrapper:
        trainer.parts.wrapper.step(trainer.optimizer)
    else:
        trainer.optimizer.step()
    trainer.keep_zeros()
    for optimizer in trainer.parts.own:
        optimizer.step()


def autocast(job: JobSpec, device: torch.device) -> torch.autocast:
    """The precision of forward passes: bf16 autocast when asked for, or by default on a GPU."""
    bf16 = job.precision == "bf16" or (job.precision == "auto" and device.type == "cuda")
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16)


def finite(trainer: Trainer, loss: float) -> float:
    """The loss itself. Raises DivergedError, with the norms per layer as its details, when it is NaN or infinite."""
    if not math.isfinite(loss):
        params = {name: param.detach().float() for name, param in trainer.network.named_parameters()}
        grads = {name: param.grad.float() for name, param in trainer.network.named_parameters() if param.grad is not None}
        norm = float(torch.stack([param.norm() for param in params.values()]).norm())
        spoiled = [name for name, grad in grads.items() if not grad.isfinite().all()]
        raise DivergedError(
            f"train.loss: {loss} at step {trainer.step}, norm of all parameters {norm:.3g}, gradients not finite in {len(spoiled)} of "
            f"{len(grads)} tensors, is not allowed; allowed: finite (try a smaller train.lr)",
            {"step": trainer.step, "loss": str(loss), "gradient_norms": _norms(grads), "parameter_norms": _norms(params)},
        )
    return loss


def _norms(tensors: dict[str, Tensor]) -> dict[str, float | str]:
    """The norm of each tensor; as text where it is no number that JSON has."""
    found = {name: float(tensor.norm()) for name, tensor in tensors.items()}
    return {name: norm if math.isfinite(norm) else str(norm) for name, norm in found.items()}
