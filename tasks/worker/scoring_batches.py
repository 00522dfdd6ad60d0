"""The batches on which networks are scored: the same for criteria, the scorer and the feature data set."""

from functools import partial

import torch
from torch import nn

from autosparse.models import seeding
from autosparse.models.gradients import ScoringBatches
from autosparse.models.masks.mask import Mask
from autosparse.models.masks.reparametrized import copied
from autosparse.models.networks.layout import memory_format
from autosparse.models.specs.run_specs import DataSpec, TrainSpec
from autosparse.models.training.images import normalise, to_images
from autosparse.models.training.lookahead import look_ahead
from autosparse.models.training.scoring_rows import scoring_rows
from autosparse.models.training.trainer import Trainer
from autosparse.storage.image_datasets import ImageArrays
from autosparse.tasks.worker.job import Job
from autosparse.tasks.worker.train_network import with_statistics


def scoring_batches(job: Job, arrays: ImageArrays, seed: int, *, data: DataSpec, training: TrainSpec | None = None) -> ScoringBatches:
    """The batches on which a network is scored: drawn by seed from the training images, not augmented.

    They can look ahead where the run's spec says so and there is a `training` to do it by.
    """
    scoring, data, batches = job.run.scoring, with_statistics(data, arrays), ScoringBatches()
    for rows in (chosen.numpy() for chosen in scoring_rows(len(arrays.train_labels), scoring, seed)):
        pixels = torch.from_numpy(arrays.train_images[rows]).to(job.device)
        labels = torch.from_numpy(arrays.train_labels[rows]).to(job.device)
        batches.append((normalise(pixels, data.mean, data.std, channels_last=job.resources.channels_last), labels))
    if scoring.lookahead_steps and training:
        batches.look_ahead = partial(_look_ahead, job, arrays, data, training, seed)
    return batches


def _look_ahead(
    job: Job, arrays: ImageArrays, data: DataSpec, training: TrainSpec, seed: int, network: nn.Module, mask: Mask | None
) -> nn.Module:
    """The network after a short training under `mask` on other batches than its retraining will see."""
    layout = memory_format(network, channels_last=job.resources.channels_last)
    copy = copied(network).to(job.device, memory_format=layout)  # type: ignore[call-overload]
    train = to_images(arrays.train_images, arrays.train_labels, job.device)
    trainer = Trainer(
        network=copy,
        forward=copy,
        spec=training,
        data=data,
        job=job.resources,
        train=train,
        test=train,
        seed=seeding.derive(seed, "look-ahead"),
        mask=mask,
    )
    return look_ahead(trainer, steps=job.run.scoring.lookahead_steps, lr=job.run.scoring.lookahead_lr)
