"""Methods beside their targets before anything starts: what a method cannot do is said in one line, not after hours of other arms."""

from collections.abc import Callable

from torch import nn

from autosparse.models.arms.plan import densities_of, methods_of
from autosparse.models.errors import SpecError, not_allowed
from autosparse.models.methods.contract import Parts, Setup
from autosparse.models.methods.names import trains
from autosparse.models.methods.registry import METHODS, parse
from autosparse.models.specs.experiment import ExperimentSpec
from autosparse.models.specs.fanout import TargetSpec
from autosparse.tasks.checks.networks import build, images_of

TRAIN_IMAGES = 50_000  # of a data set that nobody has opened yet


def check_methods(spec: ExperimentSpec, network_of: Callable[[TargetSpec], nn.Module]) -> None:
    """Raise SpecError for a method on a network that it does not support, a density that it cannot meet, or more workers than it allows.

    `network_of` gives a target's network, which stays as it is; data sets are not opened here.
    """
    fanout = spec.fanout
    for target in fanout.targets:
        network = network_of(target)
        for method in methods_of(fanout, target):
            if trains(method):
                for density in densities_of(fanout, method):
                    _check(spec, target, method, density, network)


def _check(spec: ExperimentSpec, target: TargetSpec, text: str, density: float | None, network: nn.Module) -> None:
    name, (settings,) = parse(text)
    setup = _setup(spec, target, density, network)
    where = f"on {target.label}" + ("" if density is None else f" at density {density:g}")
    if reason := METHODS[name].refuses(setup, settings):
        raise SpecError(f"fanout.methods: {text!r} {where} is not allowed; {reason}")
    workers = spec.fanout.job.workers
    if workers == 1:
        return
    own = build(target.network, images_of(spec.data_of(target)))  # which the parts change
    attached = METHODS[name].parts(_setup(spec, target, density, own), settings)
    if parts := in_the_step(attached):
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


def _setup(spec: ExperimentSpec, target: TargetSpec, density: float | None, network: nn.Module) -> Setup:
    train, data = spec.fanout.train, spec.data_of(target)
    return Setup(
        network=network,
        train=train,
        density=density,
        head=target.network.prune_head,
        image_shape=images_of(data).shape,
        steps_per_epoch=max(1, (data.train_limit or TRAIN_IMAGES) // train.batch_size),
        seed=0,
    )
