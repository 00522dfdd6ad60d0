"""How wide each layer of the scale model should be at a share of its multiply-adds: widths are bred on images that no table has seen.

A (mu + 1) evolution: one of the best widths so far is changed, scaled to the share and trained as the recipe `small_cifar_frontier` trains
an arm, from the initial weights of the wide network, channels by chance. It begins with uniform widths, those of ERK and what `--start`
names. Seed 100 judges, on the training images that the recipe leaves out, and seed 101 with it in the end. What was best then meets the
test seeds and test images of the recipe's table, beside what it began with. Each training that has ended is a line in the file of `--out`;
the same command goes on from there.
"""

import json
import random
import time
from argparse import ArgumentParser
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch

from autosparse.flows.recipes import small_cifar_frontier
from autosparse.library.pruning import prune
from autosparse.models.channels.grain import Grained
from autosparse.models.channels.widths import affordable, order_within, unit_means
from autosparse.models.networks.build import build_network
from autosparse.models.specs.grain import Grain
from autosparse.models.training.images import ImageSet, to_images
from autosparse.models.training.loop import evaluate, fit
from autosparse.models.training.trainer import Trainer
from autosparse.storage.image_datasets import load_images
from autosparse.tasks.worker.compacted import compacted
from benchmarks.reporting import arguments, report

SPEC = small_cifar_frontier()
NETWORK, TRAIN = SPEC.fanout.targets[0].network, SPEC.fanout.train
SHAPE, CLASSES = (3, 32, 32), 10
JUDGES, TESTS = (100, 101), SPEC.fanout.seeds
RULES = ("uniform(grain=channels)", "erk(grain=channels)")
FINALISTS = 3
Widths = tuple[int, ...]


@dataclass(frozen=True)
class Search:
    """Trainings on the CIFAR-10 of `data` at a `share` of the multiply-adds; those that have ended are lines of `out`."""

    data: str
    out: Path
    share: float

    @cached_property
    def images(self) -> tuple[ImageSet, ImageSet, ImageSet]:
        """Those that are trained on, those that judge, those of the table."""
        whole = load_images(replace(SPEC.data, path=self.data, train_limit=None), None)
        used = SPEC.data.train_limit
        seen, left = (to_images(whole.train_images[part], whole.train_labels[part]) for part in (slice(used), slice(used, None)))
        return seen, left, to_images(whole.test_images, whole.test_labels)

    @cached_property
    def grained(self) -> Grained:
        """The wide network, its groups of channels and their price."""
        return Grained(self.wide(0), torch.zeros(1, *SHAPE), Grain(grain="channels"))

    def wide(self, seed: int) -> torch.nn.Module:
        """The network as it starts."""
        return build_network(NETWORK, image_shape=SHAPE, num_classes=CLASSES, seed=seed)

    def by_rule(self, method: str) -> Widths:
        """How wide each group is under a rule's mask."""
        mask = prune(self.wide(0), method=method, density=self.share, example=torch.zeros(1, *SHAPE), warn=False)
        units = self.grained.units
        stays = unit_means(units, {name: keep.double() for name, keep in mask.items()}) > 0
        return tuple(torch.bincount(units.group[stays], minlength=len(units.layers)).tolist())

    def scaled(self, wanted: Sequence[float]) -> Widths:
        """Widths in proportion to `wanted` that cost the share, as nearly from below as whole channels allow."""
        units = self.grained.units
        stays = affordable(units, order_within(units, torch.zeros(len(units.group)), wanted), self.grained.price, self.share)
        return tuple(torch.bincount(units.group[stays], minlength=len(units.layers)).tolist())

    def changed(self, parent: Widths, chance: random.Random) -> Widths:
        """A child: half of the groups become up to about a half wider or narrower, then all are scaled."""
        sizes = self.grained.units.sizes
        factors = [2 ** chance.gauss(0, 0.5) if chance.random() < 0.5 else 1.0 for _ in parent]
        return self.scaled([width / size * factor for width, size, factor in zip(parent, sizes, factors, strict=True)])

    def accuracy(self, widths: Widths, seed: int) -> float:
        """After a training with the first channels of each group; on the test images for seeds of the table, else on those that judge."""
        known = [json.loads(line) for line in self.out.read_text().splitlines()] if self.out.exists() else []
        for one in known:
            if (tuple(one["widths"]), one["seed"]) == (widths, seed):
                return one["accuracy"]
        start = time.monotonic()
        found = {"widths": widths, "seed": seed, "accuracy": self._trained(widths, seed), "seconds": time.monotonic() - start}
        with self.out.open("a") as file:
            file.write(json.dumps(found) + "\n")
        print(found, flush=True)
        return found["accuracy"]

    def _trained(self, widths: Widths, seed: int) -> float:
        units, whole = self.grained.units, self.wide(seed)
        stays = torch.cat([torch.arange(size) < width for size, width in zip(units.sizes, widths, strict=True)])
        made = compacted(whole, units.mask(whole, stays), SHAPE)
        network = made.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        seen, left, test = self.images
        trainer = Trainer(
            network=network,
            forward=network,
            spec=replace(TRAIN, evaluate_every=TRAIN.epochs),
            data=SPEC.data,
            job=SPEC.fanout.job,
            train=seen,
            test=test if seed in TESTS else left,
            seed=seed,
            mask=made.mask,
        )
        fit(trainer, on_epoch=lambda report: None)
        return evaluate(trainer)["accuracy"]


def bred(search: Search, starts: Sequence[Widths], *, minutes: float, mu: int, seed: int) -> list[Widths]:
    """All widths that were tried within the minutes, the best first by the first judge."""
    chance, end, first = random.Random(seed), time.monotonic() + 60 * minutes, JUDGES[0]
    found = {widths: search.accuracy(widths, first) for widths in starts}
    while time.monotonic() < end:
        best = sorted(found, key=lambda widths: -found[widths])
        child = search.changed(chance.choice(best[:mu]), chance)
        if child not in found:
            found[child] = search.accuracy(child, first)
    return sorted(found, key=lambda widths: -found[widths])


def main() -> None:
    """The search within its minutes, then its best on the test seeds."""
    args = arguments(__doc__, _options)
    torch.set_num_threads(1)
    search = Search(args.data, args.out, args.share)
    named = {rule: search.by_rule(rule) for rule in RULES} | {
        f"start {number}": tuple(map(int, text.split(","))) for number, text in enumerate(args.start, 1)
    }
    print(dict(zip(search.grained.units.layers, search.grained.units.sizes, strict=True)), named, flush=True)
    tried = bred(search, list(named.values()), minutes=args.minutes, mu=args.mu, seed=args.seed)
    judged = {widths: sum(search.accuracy(widths, seed) for seed in JUDGES) / len(JUDGES) for widths in tried[:FINALISTS]}
    best = max(judged, key=lambda widths: judged[widths])
    rows = []
    for name, widths in {"bred": best, **named}.items():
        tests = {f"test {seed}": search.accuracy(widths, seed) for seed in TESTS} if name == "bred" or args.all else {}
        rows.append({"widths of": name, "widths": " ".join(map(str, widths)), "seed 100": search.accuracy(widths, JUDGES[0]), **tests})
    report("width_search", rows, args, {"tried": len(tried), "groups": search.grained.units.layers})


def _options(parser: ArgumentParser) -> None:
    parser.add_argument("--data", required=True, help="the folder with CIFAR-10 as Parquet files")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="a line for each training that has ended")
    parser.add_argument("--share", type=float, default=0.125, help="of the multiply-adds (default %(default)s)")
    parser.add_argument("--start", nargs="*", default=[], metavar="WIDTHS", help="more to begin with: 13,12,22,19,31,46")
    parser.add_argument("--minutes", type=float, default=40.0, help="of breeding (default %(default)s)")
    parser.add_argument("--mu", type=int, default=4, help="how many of the best have children (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of what is changed (default %(default)s)")
    parser.add_argument("--all", action="store_true", help="what it began with meets the test seeds, too")


if __name__ == "__main__":
    main()
