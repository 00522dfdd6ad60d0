"""Training the arms of `benchmarks.cifar10_gpu`, one after another, on one device."""

import time
from typing import Any

import torch
from torch import Tensor, nn

from autosparse.models import seeding
from autosparse.models.criteria.registry import CRITERIA, Criterion
from autosparse.models.errors import DivergedError
from autosparse.models.masks import gates
from autosparse.models.masks import mask as masks
from autosparse.models.masks.mask import Mask
from autosparse.models.networks.build import build_network
from autosparse.models.scorers.criterion import as_criterion
from autosparse.models.specs.run_specs import DENSE, SCORER
from autosparse.models.training.images import ImageSet, normalise
from autosparse.models.training.loop import EpochReport, fit
from autosparse.models.training.scoring_rows import scoring_rows
from autosparse.models.training.trainer import Trainer
from benchmarks.cifar10_protocol import Arm, Setting


class Workbench:
    """One network and all images on the device.

    Every arm loads its weights into the same module, so that torch.compile compiles once and not once per arm.
    """

    def __init__(self, setting: Setting, train: ImageSet, test: ImageSet, classes: int, scorer: nn.Module | None) -> None:
        self.setting, self.train, self.test, self.classes = setting, train, test, classes
        self.device = train.labels.device
        self.methods = {**CRITERIA, **({SCORER: Criterion(as_criterion(scorer.to(self.device)))} if scorer else {})}
        self.network = self._initial(0)
        layout = torch.channels_last if setting.job.channels_last else torch.contiguous_format
        self.network.to(self.device, memory_format=layout)  # type: ignore[call-overload]
        self.forward: nn.Module = torch.compile(self.network, dynamic=False) if setting.job.compile else self.network  # type: ignore[assignment]

    def run(self, arm: Arm) -> dict[str, Any]:
        """Score, cut and train one arm; an arm that diverges is a result too, without an accuracy. Seconds are of the wall."""
        start = time.monotonic()
        record: dict[str, Any] = {**arm._asdict(), "status": "ok", "accuracy": None}
        try:
            self.network.load_state_dict(self._initial(arm.seed).state_dict())
            begun = time.monotonic()
            mask = self._mask(arm)
            record["kept"] = masks.kept(mask)  # waits for the device
            record["scoring_seconds"] = time.monotonic() - begun
            record |= self._facts(mask)
            record |= self._train(arm, mask)
        except DivergedError as error:
            record |= {"status": "diverged", "reason": str(error)}
        return {**record, "seconds": time.monotonic() - start}

    def _initial(self, seed: int) -> nn.Module:
        return build_network(self.setting.network, image_shape=self._shape, num_classes=self.classes, seed=seed)

    @property
    def _shape(self) -> tuple[int, int, int]:
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width

    def _mask(self, arm: Arm) -> Mask:
        """Cut at the arm's own density: an iterative method takes its whole schedule to it, as published."""
        head = self.setting.network.prune_head
        if arm.method == DENSE:
            return masks.full(masks.prunable(self.network, head=head))
        method, stream = self.methods[arm.method], seeding.generator(arm.seed, "criterion", arm.method)
        scores = method.score(self.network, self._scoring_batches(arm.seed), stream, head=head, density=arm.density)
        return method.allocate(scores, arm.density)

    def _scoring_batches(self, seed: int) -> list[tuple[Tensor, Tensor]]:
        protocol, last = self.setting.protocol, self.setting.job.channels_last
        chosen = [rows.to(self.device) for rows in scoring_rows(len(self.train), protocol.scoring, seed)]
        data = protocol.data
        return [(normalise(self.train.images[rows], data.mean, data.std, channels_last=last), self.train.labels[rows]) for rows in chosen]

    def _facts(self, mask: Mask) -> dict[str, Any]:
        return {
            "weights": masks.total(mask),
            "collapsed_layers": len(masks.collapsed_layers(mask)),
            "effective_density": gates.effective_density(self.network, mask, self._shape),
        }

    def _train(self, arm: Arm, mask: Mask) -> dict[str, Any]:
        """Accuracy and loss of the last epoch; images per second include the evaluations, and in the first arm compilation."""
        trainer = Trainer(
            network=self.network,
            forward=self.forward,
            spec=self.setting.protocol.train,
            data=self.setting.protocol.data,
            job=self.setting.job,
            train=self.train,
            test=self.test,
            seed=arm.seed,
            mask={name: keep.to(self.device) for name, keep in mask.items()},
        )
        history: list[EpochReport] = []
        start = time.monotonic()
        fit(trainer, on_epoch=history.append)
        seconds = time.monotonic() - start
        last, images = history[-1], trainer.step * trainer.spec.batch_size
        return {"accuracy": last.metrics["accuracy"], "loss": last.loss, "train_seconds": seconds, "images_per_s": images / seconds}
