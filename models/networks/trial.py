"""One trial of a network before it costs anything: two real examples forth and back, a step along the gradient, an evaluation."""

import math
import sysconfig
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from autosparse.models.errors import SHOWN, AutosparseError, SpecError, not_allowed
from autosparse.models.masks.reparametrized import copied
from autosparse.models.networks.calls import Inputs, call, labels_of, loss_of, mapped

RATE = 1e-3  # of the one step
# whose lines tell a person nothing about their own code: this product, Python, and whatever is installed
HOUSE = tuple(str(Path(__file__).parents[2] / name) for name in ("autosparse", "flows", "models", "storage", "tasks"))
OTHERS = (*HOUSE, *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")))


def persons_frame(error: BaseException) -> traceback.FrameSummary | None:
    """The innermost line of somebody's own code that an error went through, None where there is none."""
    theirs = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith((*OTHERS, "<"))]
    return theirs[-1] if theirs else None


class ForeignError(SpecError):
    """Somebody's own code raised; `details["traceback"]` is the whole story."""

    def __init__(self, what: str, error: BaseException) -> None:
        frames = traceback.extract_tb(error.__traceback__)
        theirs = persons_frame(error) or (frames[-1] if frames else None)
        place = f" ({Path(theirs.filename).name}:{theirs.lineno}: {theirs.line})" if theirs else ""
        said = " ".join(str(error).split())[:SHOWN]
        super().__init__(f"{what} raised {type(error).__name__}: {said}{place}", {"traceback": "".join(traceback.format_exception(error))})


def try_out(network: nn.Module, batches: Sequence[Any], loss: Callable[[nn.Module, Any], Tensor] | None = None) -> None:
    """Raise SpecError, in one line, for what would go wrong later in training or evaluation; the network is left as it was.

    A copy sees the first batch: two examples of it, or all of it where the batch or the loss is one's own. A network's own code that
    raises is a ForeignError.
    """
    check_finite(network)
    probe = copied(network)
    batch = mapped(lambda tensor: tensor[:2] if tensor.dim() else tensor, batches[0]) if loss is None else batches[0]
    ours = _Checked()
    probe.train()
    with torch.enable_grad():
        value = guarded("network: its forward pass", lambda: loss(probe, batch) if loss else loss_of(probe, batch, ours))
        if not isinstance(value, Tensor) or value.numel() != 1:
            raise not_allowed("loss", type(value).__name__, "a tensor with one number")
        if not math.isfinite(float(value.detach())):
            raise not_allowed("loss", float(value.detach()), "finite on the first examples")
        if not value.requires_grad:
            raise not_allowed("loss", float(value), "a loss that depends on parameters with a gradient")
        guarded("network: its backward pass", value.backward)
    with torch.no_grad():  # a step by hand: the first optimizer of a process imports a compiler, for seconds
        for param in probe.parameters():
            if param.grad is not None:
                param.sub_(param.grad, alpha=RATE)
    probe.eval()
    if ours.classes is not None:
        for one in batches:
            ours.check(labels_of(one))
    with torch.no_grad():
        guarded("network: its evaluation", lambda: loss(probe, batch) if loss else loss_of(probe, batch, ours))


def try_forward(network: nn.Module, inputs: Inputs) -> None:
    """One evaluation, which also gives lazy layers their shapes. Raises SpecError for weights that are not finite, ForeignError."""
    modes = [(module, module.training) for module in network.modules()]
    try:
        network.eval()
        with torch.no_grad():
            guarded("network: its forward pass", lambda: call(network, inputs))
    finally:
        for module, mode in modes:
            module.training = mode
    check_finite(network)


def check_finite(network: nn.Module) -> None:
    """Raise SpecError for a parameter with a NaN or an infinite number."""
    for name, param in network.named_parameters():
        if not isinstance(param, nn.parameter.UninitializedParameter) and not bool(param.detach().isfinite().all()):
            raise not_allowed(f"network.{name}", "a value that is not finite", "finite weights")


def guarded(what: str, act: Callable[[], Any]) -> Any:
    """What `act` returns; an error of somebody's own code in it becomes a ForeignError, our own errors pass."""
    try:
        return act()
    except AutosparseError:
        raise
    except Exception as error:
        raise ForeignError(what, error) from error


class _Checked:
    """Cross entropy, after a look at whether outputs and labels go together; what it saw is there for the labels of all batches."""

    classes: int | None = None

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        if labels.is_floating_point():
            if labels.shape != logits.shape:
                raise not_allowed("labels", str(labels.dtype), "class numbers (int64), or a loss of your own, loss(model, batch)")
        elif logits.dim() < 2 or labels.shape != (logits.shape[0], *logits.shape[2:]):
            shapes = f"outputs of shape {tuple(logits.shape)} for labels of shape {tuple(labels.shape)}"
            raise not_allowed("network", shapes, "one logit per class and label")
        else:
            self.classes = logits.shape[1]
            self.check(labels)
        return cross_entropy(logits, labels)

    def check(self, labels: Tensor) -> None:
        """Raise SpecError for a label without an output."""
        if self.classes is not None and labels.numel() and int(labels.max()) >= self.classes:
            raise not_allowed("network", f"{self.classes} outputs for a label {int(labels.max())}", "one output per class")
