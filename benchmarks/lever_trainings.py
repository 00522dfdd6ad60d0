"""The trainings that levers of the scorer are judged by: the scale model from several initializations, whole or candidates alone."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from autosparse.flows.recipes import small_cifar_scorer
from autosparse.models import seeding
from autosparse.models.criteria.smallest_paths import HEAD, smallest_paths
from autosparse.models.gradients import ScoringBatches
from autosparse.models.masks.allocation import global_topk
from autosparse.models.masks.mask import Mask, prunable
from autosparse.models.networks.build import build_network
from autosparse.models.training.images import ImageSet, normalise, to_images
from autosparse.models.training.lookahead import look_ahead
from autosparse.models.training.loop import fit
from autosparse.models.training.scoring_rows import scoring_rows
from autosparse.models.training.trainer import Trainer
from autosparse.storage.image_datasets import load_images

SPEC = small_cifar_scorer()
PROBE_SEED = 5000  # of its order of images, added to the initialization's seed
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Trainings:
    """Trainings of the recipe `small_cifar_scorer` on the CIFAR-10 of `data`; those that have ended are kept under `folder`."""

    data: str
    folder: Path

    @cached_property
    def images(self) -> ImageSet:
        """The training images of the recipe."""
        arrays = load_images(replace(SPEC.data, name="parquet", path=self.data, download=False), None)
        return to_images(arrays.train_images, arrays.train_labels, CPU)

    def network(self, seed: int) -> nn.Module:
        """The network as it starts."""
        return build_network(SPEC.fanout.targets[0].network, image_shape=(3, 32, 32), num_classes=10, seed=seed)

    def batches(self, seed: int) -> ScoringBatches:
        """The scoring batches of the recipe."""
        found, data = ScoringBatches(), SPEC.data
        for rows in scoring_rows(len(self.images.labels), SPEC.scoring, seed):
            pixels = normalise(self.images.images[rows], data.mean, data.std, channels_last=True)
            found.append((pixels, self.images.labels[rows]))
        return found

    def candidates(self, seed: int) -> Mask:
        """The fifth of all weights that `smallest_paths` keeps, which the recipe's look ahead trains."""
        chance = seeding.generator(seed, "criterion")
        scores = smallest_paths(self.network(seed), self.batches(seed), chance, density=HEAD.candidates)
        return global_topk(scores, HEAD.candidates, floor=1)

    def trained(self, seed: int, order: int, mask: Mask | None) -> dict[str, Tensor]:
        """The prunable weights after a full training with the images in order `order`, of what `mask` keeps."""
        path = self.folder / f"{'candidates' if mask else 'dense'}-{seed}-{order}.safetensors"
        if not path.exists():
            trainer = self._trainer(seed, order, mask)
            fit(trainer, on_epoch=lambda report: None)
            self.folder.mkdir(parents=True, exist_ok=True)
            part = path.with_suffix(".part")  # an interrupted write leaves no training
            save_file({name: param.detach().contiguous() for name, param in prunable(trainer.network).items()}, part)
            part.replace(path)
        return load_file(path)

    def probed(self, seed: int, mask: Mask) -> nn.Module:
        """The candidates' network after the recipe's probe."""
        return look_ahead(self._trainer(seed, PROBE_SEED + seed, mask), steps=SPEC.scoring.lookahead_steps, lr=SPEC.scoring.lookahead_lr)

    def _trainer(self, seed: int, order: int, mask: Mask | None) -> Trainer:
        network = self.network(seed).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        few = ImageSet(self.images.images[:1], self.images.labels[:1])  # accuracy is not asked for
        return Trainer(
            network=network,
            forward=network,
            spec=SPEC.fanout.train,
            data=SPEC.data,
            job=SPEC.fanout.job,
            train=self.images,
            test=few,
            seed=order,
            mask=mask,
        )


def place_by_growth(before: Tensor, after: Tensor) -> Tensor:
    """Weights (n,) of a layer before and after a training -> their places by growth, float32 in (0, 1), 1 = what grew most."""
    grown = after.abs() - before.abs()
    places = torch.empty_like(grown)
    places[grown.argsort(stable=True)] = (torch.arange(len(grown)) + 0.5) / len(grown)
    return places
