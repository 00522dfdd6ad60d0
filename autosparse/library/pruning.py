"""`prune`: a mask for anybody's network, by any method, at one density or many. The same parts, and the same bits, as in the pipeline."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from autosparse.library.cuts import Cuts, grain_of_call
from autosparse.library.latency import LATENCY, latency_note, share_of_latency
from autosparse.library.mask import Mask
from autosparse.library.mask_checks import MaskWarning
from autosparse.library.mask_file import some
from autosparse.library.scorer import Scorer
from autosparse.models import seeding
from autosparse.models.arms.controls import CONTROLS
from autosparse.models.channels.grain import Grained
from autosparse.models.criteria.checked import checked
from autosparse.models.criteria.contract import Criterion
from autosparse.models.criteria.registry import find_criterion
from autosparse.models.errors import not_allowed, unknown_name
from autosparse.models.gradients import OwnLoss, ScoringBatches
from autosparse.models.masks.awake import asleep
from autosparse.models.masks.mask import Scores
from autosparse.models.masks.prunable import CHOICE, Choice, choose
from autosparse.models.methods.names import family
from autosparse.models.networks.calls import Inputs, fitted, has_labels, inputs_of, one_of, tensors_in
from autosparse.models.networks.trial import check_finite, guarded, try_forward, try_out
from autosparse.models.networks.wrappers import plain
from autosparse.models.specs.grain import WEIGHTS, Grain
from autosparse.models.specs.levels import level_name
from autosparse.models.specs.run_specs import LOOKING_AHEAD
from autosparse.models.training.short import short_training

Method = str | Scorer | Criterion | Callable[..., Scores]

AT_MOST = 10  # batches that are taken of a loader, which may have thousands
WITHOUT_INPUTS = {"random", "erk", "uniform", "uniform_plus", "magnitude", "magnitude_iterative"}
BY_EXAMPLE = {"synflow", "smallest_paths", "phew", "ntk_sap"}  # see no more of the inputs than their shape


def prune(
    model: nn.Module,
    batches: Iterable[Any] = (),
    *,
    density: float | Sequence[float] | Mapping[str, float],
    method: Method = "synflow",
    loss: OwnLoss | None = None,
    example: Inputs | None = None,
    seed: int = 0,
    head: bool = True,
    ignore: str | nn.Module | Iterable[str | nn.Module] = (),
    embeddings: bool = False,
    frozen: bool = False,
    unused: bool = False,
    min_per_layer: int = 0,
    control: str | None = None,
    grain: str | Grain = WEIGHTS,
    cost: str = "multiply_adds",
    look_ahead_steps: int = 100,
    look_ahead_lr: float = 0.1,
    warn: bool = True,
) -> Any:
    """The `Mask` of `model` at `density`, the kept share of its prunable weights; the model stays as it is.

    Parameters
    ----------
    batches
        (inputs, labels), or mappings as Hugging Face's collators make them: all of a list, the first ten of a loader. Methods that look
        at no data need an `example` (one batch of inputs) alone; random, erk, uniform and magnitude need neither.
    density
        One number in (0, 1] gives a mask; several give a list of masks out of one scoring; a mapping of prunable weights to numbers gives
        one mask with the method's best weights of each layer (a layer that it does not name stays whole).
    method
        The name of a criterion (docs/methods.md), `package.module:function`, what `autosparse.scorer` returns, or a function
        (network, batches, generator, *, head, density) -> scores.
    loss
        (model, batch) -> the mean loss of a batch, in the place of cross entropy; batches may then be anything.
    head, ignore, embeddings, frozen, unused
        Whether the layer used last is prunable; layers, or patterns of names, that are not; and whether embeddings, weights without
        gradient and weights that evaluation does not use are.
    min_per_layer
        At least so many weights stay in each layer.
    grain, cost
        `channels` removes whole channels that belong together, and `density` is the share that is left of the `cost`: `multiply_adds`,
        `weights`, `parameters`, or `latency`: the time of a forward pass on this machine, for the `example` as it was given or one input.
        The share of the multiply-adds that this takes is `about.density` then, and gives the same mask on any machine. `mixed` removes
        channels first and weights inside what is left, `kernels` whole kernels, and the density is that of weights. A method's name may
        say it all: `synflow(grain=channels,widths=uniform)` (docs/frontier.md).
    control
        A control in the place of the mask: `shuffle` keeps the layers' counts and permutes what they keep.
    look_ahead_steps, look_ahead_lr
        The short training, on the batches in turn, of growth, growth_paths and a scorer that looks ahead.
    warn
        Whether what a person should know is said as a MaskWarning; `mask.about.notes` has it in any case.

    Raises
    ------
    SpecError
        One line, for what network, batches or a value do wrong, before anything is scored.
    DivergedError
        For numbers that are not finite.
    """
    at = grain_of_call(method, grain, cost)
    cuts, name = Cuts.of(density, min_per_layer, at), family(_name(method))
    if control is not None and (control not in CONTROLS or not CONTROLS[control].mask):
        raise unknown_name("control", control, [known for known, one in CONTROLS.items() if one.mask])
    title = level_name(name, at) if at else name
    network, given = plain(model), _batches(batches)
    criterion = checked(name, _criterion(method, network, seed))
    seen = _example(network, given, example, name, needed=at is not None or name not in WITHOUT_INPUTS)
    given = [fitted(network, batch) for batch in given]
    which = {"ignore": ignore, "embeddings": embeddings, "frozen": frozen, "unused": unused}
    with _tried_and_chosen(network, given, seen, loss, name not in WITHOUT_INPUTS | BY_EXAMPLE, **which) as left_out:
        parts = ScoringBatches(given or ([] if seen is None else [(seen, None)]))
        parts.loss = loss
        if name in LOOKING_AHEAD:
            parts.look_ahead = partial(short_training, given, steps=look_ahead_steps, lr=look_ahead_lr, loss=loss)

        def scored(of: nn.Module) -> Scores:
            stream = seeding.generator(seed, "criterion", title)
            return guarded(f"{name}: scoring", lambda: criterion.score(of, parts, stream, head=head, density=cuts.least))

        scores, grained = scored(network), Grained(network, seen, at, head) if at else None
        notes, timed = tuple(_notes(network, method, parts, head)), seen if example is None else fitted(network, example)
        if grained and cost == LATENCY:
            cut_at = partial(grained.cut, scores, allocate=criterion.allocate, again=scored, floor=min_per_layer)
            shares = [share_of_latency(network, timed, one, grained.least, cut_at) for one in cuts.densities]
            cuts = replace(cuts, densities=tuple(shares))
            scores = scored(network)  # as for these shares, which then give the same masks without a clock
        found = []
        for one, cut in cuts.made(criterion, scores, grained, scored):
            if control and (change := CONTROLS[control].mask):
                chance = seeding.generator(seed, "control", control, title, f"{one:g}")
                cut = grained.shuffle(cut, chance) if grained else change(cut, chance)
            mask = Mask.of(cut, network, method=f"{title}+{control}" if control else title, density=one, seed=seed)
            told = [latency_note(network, timed, mask, one)] if cost == LATENCY else []
            mask.about = replace(mask.about, left_out=left_out, notes=(*notes, *_emptied(mask), *told))
            found.append(mask)
    for note in dict.fromkeys(note for mask in found for note in mask.about.notes if warn):
        warnings.warn(note, MaskWarning, stacklevel=2)
    return found if cuts.several else found[0]


def _batches(batches: Any) -> list[Any]:
    if isinstance(batches, Tensor | Mapping | str) or not isinstance(batches, Iterable):
        raise not_allowed("batches", type(batches).__name__, "an iterable of batches, such as [(inputs, labels)] or a DataLoader")
    if isinstance(batches, tuple) and batches and all(isinstance(part, Tensor) for part in batches):
        raise not_allowed("batches", "a tuple of tensors", "a list of batches: [(inputs, labels)]")
    return list(batches) if isinstance(batches, Sequence) else list(islice(batches, AT_MOST))


def _name(method: Any) -> str:
    if isinstance(method, str):
        return method
    if isinstance(method, Scorer):
        return method.name
    if not isinstance(method, Criterion) and not callable(method):
        raise not_allowed("method", type(method).__name__, "a name, a scorer, a Criterion or a function (network, batches, ...) -> scores")
    return str(getattr(method, "__name__", type(method).__name__))


def _criterion(method: Any, network: nn.Module, seed: int) -> Criterion:
    if isinstance(method, str):
        return find_criterion(family(method), "method")
    if isinstance(method, Scorer):
        device = next((param.device for param in network.parameters()), torch.device("cpu"))
        return method.criterion(seeding.generator(seed, "drift"), device)
    return method if isinstance(method, Criterion) else Criterion(method)


def _example(network: nn.Module, batches: list[Any], example: Inputs | None, name: str, *, needed: bool) -> Inputs | None:
    """One example of what goes into the network; None where there is none and none is needed."""
    inputs = example if example is not None else inputs_of(batches[0]) if batches else None
    if inputs is None or not tensors_in(inputs):
        if not needed:
            return None
        if _has_arrays(inputs):
            raise not_allowed("batches", "NumPy arrays", "tensors, as torch.from_numpy makes them")
        raise not_allowed("batches", len(batches), f"an example, or at least one batch, for {name}")
    if not batches and name not in WITHOUT_INPUTS | BY_EXAMPLE:
        raise not_allowed("batches", 0, f"at least one batch for {name}")
    return one_of(fitted(network, inputs))


def _has_arrays(inputs: Any) -> bool:
    parts = inputs.values() if isinstance(inputs, Mapping) else inputs if isinstance(inputs, list | tuple) else [inputs]
    return any(hasattr(part, "__array_interface__") for part in parts)


@contextmanager
def _tried_and_chosen(
    network: nn.Module, batches: list[Any], seen: Inputs | None, loss: OwnLoss | None, needs_labels: bool, **which: Any
) -> Iterator[dict[str, str]]:
    """Inside, the network knows which of its weights are prunable; gives what stays dense, and why. Nothing of it stays behind."""
    with seeding.scoped(0, "trial"):  # dropout draws, and so may lazy layers; the random state is the person's
        if seen is None:
            check_finite(network)
        else:
            try_forward(network, seen)
        if batches and (needs_labels or loss is not None or has_labels(batches[0])):
            try_out(network, batches, loss)
    before: Choice | None = network.__dict__.get(CHOICE)
    try:
        yield choose(network, seen, **which).left_out
    finally:
        network.__dict__.pop(CHOICE, None)
        if before is not None:
            network.__dict__[CHOICE] = before


def _notes(network: nn.Module, method: Any, batches: ScoringBatches, head: bool) -> Iterator[str]:
    """What a person should know before they use the mask."""
    if zero := asleep(network):
        yield (
            f"{some(zero)} {'is' if len(zero) == 1 else 'are'} zero at initialization, or nearly, so hardly any gradient passes; "
            "scored as if open, the network itself stays as it is"
        )
    if isinstance(method, Scorer) and (drift := method.drift(network, batches, head=head)) and drift.sentence:
        yield drift.sentence


def _emptied(mask: Mask) -> list[str]:
    empty = mask.collapsed_layers()
    return [f"no weight is left in {some(empty)}; min_per_layer keeps some, synflow and smallest_paths keep paths"] if empty else []
