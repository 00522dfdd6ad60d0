"""The batches on which networks are scored: the same for criteria, the scorer and the feature data set."""

from functools import partial

from torch import nn

from autosparse.models import seeding
from autosparse.models.gradients import ScoringBatches
from autosparse.models.masks.mask import Mask
from autosparse.models.masks.reparametrized import copied
from autosparse.models.networks.layout import memory_format
from autosparse.models.specs.run_specs import TrainSpec
from autosparse.models.training.lookahead import by_sgd, look_ahead
from autosparse.models.training.scoring_rows import scoring_rows
from autosparse.models.training.trainer import Trainer
from autosparse.tasks.worker.job import Job
from autosparse.tasks.worker.problem import Problem


def scoring_batches(job: Job, problem: Problem, seed: int, *, training: TrainSpec | None = None) -> ScoringBatches:
    """The batches on which a network is scored: drawn by seed from the training examples, not augmented.

    They can look ahead where the run's spec says so and there is a `training` to do it by.
    """
    scoring = job.run.scoring
    rows = scoring_rows(problem.sizes["train"], scoring, seed)
    batches = ScoringBatches(problem.few(rows, job.device, channels_last=job.resources.channels_last))
    batches.loss = problem.own.loss if problem.own else None
    if scoring.lookahead_steps and training:
        batches.look_ahead = partial(_look_ahead, job, problem, training, seed)
    return batches


def _look_ahead(job: Job, problem: Problem, training: TrainSpec, seed: int, network: nn.Module, mask: Mask | None) -> nn.Module:
    """The network after a short training under `mask` on other batches than its retraining will see."""
    layout = memory_format(network, channels_last=job.resources.channels_last)
    copy = copied(network).to(job.device, memory_format=layout)  # type: ignore[call-overload]
    train = problem.examples("train", job.device)
    spec, parts = by_sgd(training, copy)
    trainer = Trainer(
        network=copy,
        forward=copy,
        spec=spec,
        data=problem.data,
        job=job.resources,
        train=train,
        test=train,
        seed=seeding.derive(seed, "look-ahead"),
        mask=mask,
        objective=problem.objective(training),
        parts=parts,
    )
    return look_ahead(trainer, steps=job.run.scoring.lookahead_steps, lr=job.run.scoring.lookahead_lr)
