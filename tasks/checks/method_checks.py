"""Methods beside their targets before anything starts: what a method cannot do is said in one line, not after hours of other arms."""

from collections.abc import Mapping

from torch import nn

from autosparse.models.arms.plan import densities_of, methods_of
from autosparse.models.channels.examples import example_of
from autosparse.models.channels.grain import Grained
from autosparse.models.channels.narrow import narrow_network
from autosparse.models.criteria.registry import find_criterion
from autosparse.models.errors import CollapseError, SpecError, not_allowed
from autosparse.models.methods.contract import Parts, Setup
from autosparse.models.methods.names import family, is_learned, trains
from autosparse.models.methods.registry import find_method, parse
from autosparse.models.networks.registry import NETWORKS
from autosparse.models.specs.experiment import ExperimentSpec
from autosparse.models.specs.fanout import TargetSpec
from autosparse.models.specs.grain import NARROW, grain_of, narrow_of
from autosparse.tasks.checks.networks import Seen, build
from autosparse.tasks.checks.training import changed, unread_beside

FIELD = "fanout.methods"
TRAIN_IMAGES = 50_000  # of a data set that nobody has opened yet


def check_methods(spec: ExperimentSpec, targets: Mapping[TargetSpec, tuple[nn.Module, Seen]]) -> None:
    """Raise SpecError for a criterion or method from outside that cannot be imported or is none, for a method on a network that it does
    not support, a density that it cannot meet, or more workers than it allows.

    `targets` has each target's network, which stays as it is, and what it sees.
    """
    fanout = spec.fanout
    for text in fanout.all_methods:
        if trains(text):
            find_method(family(text), FIELD)
        elif not is_learned(text) and family(text) != NARROW:
            find_criterion(family(text), FIELD)
    for target in fanout.targets:
        network, seen = targets[target]
        _check_shares(spec, target, network, seen)
        for text in filter(trains, methods_of(fanout, target)):
            for density in densities_of(fanout, text):
                _check(spec, target, text, density, network, seen)


def _check_shares(spec: ExperimentSpec, target: TargetSpec, network: nn.Module, seen: Seen) -> None:
    """Raise SpecError where a target has no channels that could leave, or one channel per layer costs more than a share."""
    if not seen.known and target.network.name not in NETWORKS:  # nobody knows whether it runs on such images
        return
    for text in methods_of(spec.fanout, target):
        least = min((share for share in densities_of(spec.fanout, text) if share), default=1.0)
        grain, narrow = grain_of(text), narrow_of(text)
        try:
            if narrow:
                narrow_network(target.network, least, narrow.cost, seed=0, **seen.fit)
            elif grain and grain.grain != "kernels":
                Grained(network, example_of(seen.image_shape), grain, target.network.prune_head).check(least)
        except (SpecError, CollapseError) as error:
            raise SpecError(f"{FIELD}: {text!r} on {target.label} is not allowed; {error}") from None


def _check(spec: ExperimentSpec, target: TargetSpec, text: str, density: float | None, network: nn.Module, seen: Seen) -> None:
    name, (settings,) = parse(text)
    method = find_method(name)
    setup = _setup(spec, target, density, network, seen)
    where = f"on {target.label}" + ("" if density is None else f" at density {density:g}")
    if reason := method.refuses(setup, settings):
        raise SpecError(f"{FIELD}: {text!r} {where} is not allowed; {reason}")
    workers = spec.fanout.job.workers
    if workers == 1 and not seen.task and not changed(setup.train):
        return
    own = build(target.network, seen)  # which the parts change
    attached = method.parts(_setup(spec, target, density, own, seen), settings)
    if seen.task and attached.gradient:
        raise SpecError(f"{FIELD}: {text!r} {where} is not allowed; it makes the gradient of images and labels, not of a task of your own")
    if seen.task and seen.task.has_optimizer and (attached.optimizer or attached.own):
        raise SpecError(f"{FIELD}: {text!r} {where} is not allowed; it brings an optimizer, and so does {seen.task.name}")
    for error in unread_beside(setup.train, attached, text):
        raise error
    if workers > 1 and (parts := in_the_step(attached)):
        raise not_allowed(
            "fanout.job.workers",
            workers,
            f"1 for {text}, which replaces {' and '.join(parts)} in each step; criteria, and methods that bring an optimizer or a rewrite "
            "alone, take more",
        )


def in_the_step(parts: Parts) -> list[str]:
    """What of a step the parts replace that is not the same on several workers."""
    words = {
        "parameters": parts.transforms,
        "the gradient": parts.gradient,
        "the mask": parts.schedule,
        "the loss": parts.controllers,
        "the order of steps": parts.wrapper,
    }
    return [word for word, part in words.items() if part]


def _setup(spec: ExperimentSpec, target: TargetSpec, density: float | None, network: nn.Module, seen: Seen) -> Setup:
    train, data = spec.fanout.train, spec.data_of(target)
    return Setup(
        network=network,
        train=train,
        density=density,
        head=target.network.prune_head,
        image_shape=seen.image_shape,
        steps_per_epoch=max(1, (data.train_limit or TRAIN_IMAGES) // train.batch_size),
        seed=0,
    )
