"""Directional pruning by gRDA (Chao, Wang, Xing and Cheng, NeurIPS 2020, arXiv 2006.09358): the optimizer makes the zeros."""

from dataclasses import dataclass
from typing import Annotated, Literal

from autosparse.models.masks import mask as masks
from autosparse.models.methods.contract import Method, Parts, Settings, Setup
from autosparse.models.methods.dual_averaging import densities, over_network
from autosparse.models.specs.rules import Range


@dataclass(frozen=True, kw_only=True, slots=True)
class GrdaSettings(Settings):
    """`c` and `mu` of the threshold, c * lr ** (1/2 + mu) * steps ** mu at a constant rate; c = 0 is plain SGD.

    Published: mu of .501 to .7 (.4 in an ablation) and c of 5e-4 to 5e-3, for hundreds of epochs; shorter trainings need a larger c.
    `select`: "weights" thresholds the prunable weights alone, "all" biases and norms as well, as the public code does.
    """

    c: Annotated[float, Range(least=0, most=0.1)] = 0.005
    mu: Annotated[float, Range(least=0.4, below=1)] = 0.51
    select: Literal["weights", "all"] = "weights"


def parts(setup: Setup, settings: GrdaSettings) -> Parts:
    """The optimizer of all parameters; facts: `threshold`, and the densities of what is not exactly zero."""
    network = setup.network
    chosen = network.parameters() if settings.select == "all" else masks.prunable(network, head=setup.head).values()
    optimizer = over_network(network, list(chosen), lr=setup.train.lr, c=settings.c, mu=settings.mu)
    return Parts(optimizer=optimizer, facts=lambda: {"threshold": optimizer.threshold(), **densities(network, head=setup.head)})


GRDA = Method(
    settings=GrdaSettings,
    levels=(GrdaSettings(c=0.01, mu=0.8), GrdaSettings(c=0.025, mu=0.8), GrdaSettings(c=0.05, mu=0.8)),
    by_density=False,
    parts=parts,
    card=(
        "Directional pruning (gRDA). Threshold, start and hyper-parameters as in the authors' public code; SGD without momentum and "
        "without weight decay, as in every published run, whatever the training spec says; learning rates are those of the spec. "
        "Deviations: the code thresholds all parameters (select=all), here by default the prunable weights alone, and density is "
        "the share of them that is not exactly zero (density_all: of all parameters, as published). Published trainings are hundreds of "
        "epochs long; the levels here are for about 1,000 steps at lr .1, with c above the published range (0, .005). No density target."
    ),
)
