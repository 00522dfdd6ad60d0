"""The batches on which networks are scored: the same for criteria, the scorer and the feature data set."""

import torch

from models.images import normalise
from models.scoring import scoring_rows
from models.specs import DataSpec, ScoringSpec
from storage.image_datasets import ImageArrays
from tasks.worker.job import Job
from tasks.worker.train_network import with_statistics


def scoring_batches(job: Job, arrays: ImageArrays, seed: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The batches on which a network is scored: drawn by seed from the training images, not augmented."""
    scoring, data = job.spec("scoring", ScoringSpec), with_statistics(job.spec("data", DataSpec), arrays)
    batches = []
    for rows in (chosen.numpy() for chosen in scoring_rows(len(arrays.train_labels), scoring, seed)):
        pixels = torch.from_numpy(arrays.train_images[rows]).to(job.device)
        labels = torch.from_numpy(arrays.train_labels[rows]).to(job.device)
        batches.append((normalise(pixels, data.mean, data.std, channels_last=job.resources.channels_last), labels))
    return batches
