"""How much of what grows a strict scorer can find, lever by lever: models, losses, labels, features, sources.

    python -m benchmarks.scorer_levers --data FOLDER --out FOLDER [--boosted]

Fits on initializations 0, 1 and 2 of the scale model and judges on 100 and 101, which no fit has seen. Figures are shares: of each
layer's weights those that grow most in a full training (5 %; of candidates 10 %), found at the same count. Trainings that have ended stay
in the folder of `--out`, so that the same command goes on; eleven of them take 20 minutes on one core, the fits as long again.
`--boosted` adds boosted trees, which need scikit-learn beside what autosparse installs.
"""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from autosparse.models import seeding
from autosparse.models.masks.mask import prunable
from benchmarks.lever_features import Groups, groups_of
from benchmarks.lever_trainings import Trainings, place_by_growth
from benchmarks.reporting import options, report

SOURCES, JUDGED = (0, 1, 2), (100, 101)
OTHER_ORDER = 7000  # seed of a second order of images for source 0
PRODUCT = ("product",)
MORE = ("noise", "hessian", "flow", "means", "place")
EVERY = (*PRODUCT, *MORE)
TOP = {"whole": 0.05, "candidates": 0.1}
EPOCHS, ROWS, RATE = 10, 4096, 0.01  # as in the recipe

Ranking = Callable[[Tensor], Tensor]  # columns (n, c) of one layer -> scores (n,)
Loss = Callable[[Tensor, Tensor, Tensor, torch.Generator], Tensor]  # scores, places by growth, layers (n,) each, chance


@dataclass(frozen=True)
class Layer:
    """One layer of one initialization: what is known of its weights, and their places by growth in one or several trainings."""

    known: Groups
    start: Tensor
    places: list[Tensor]

    def columns(self, groups: Sequence[str]) -> Tensor:
        """The groups side by side."""
        return torch.cat([self.known[group] for group in groups], 1)


def layers_of(trainings: Trainings, seed: int, orders: Sequence[int], *, candidates: bool) -> list[Layer]:
    """The layers of an initialization; of its candidates alone, then with what the recipe's probe shows of them."""
    mask = trainings.candidates(seed) if candidates else None
    start = {name: param.detach() for name, param in prunable(trainings.network(seed)).items()}
    ends = [trainings.trained(seed, order, mask) for order in orders]
    known = groups_of(trainings.network(seed), trainings.batches(seed), mask)
    ahead = {name: param.detach() for name, param in prunable(trainings.probed(seed, mask)).items()} if mask else {}
    found = []
    for name, weight in start.items():
        kept = mask[name] if mask else torch.ones_like(weight, dtype=torch.bool)
        before = weight[kept]
        if ahead:
            known[name]["probe"] = place_by_growth(before, ahead[name][kept])[:, None]
        found.append(Layer(known[name], before, [place_by_growth(before, end[name][kept]) for end in ends]))
    return found


class Perceptron(nn.Module):
    """The product's scorer on any columns."""

    def __init__(self, columns: Tensor, hidden: Sequence[int], seed: int) -> None:
        super().__init__()
        spread = columns.std(0)
        self.mean, self.scale = columns.mean(0), torch.where(spread > 1e-6, 1 / spread, 0.0)
        self.body, width = nn.Sequential(), columns.shape[1]
        with seeding.scoped(seed, "lever"):
            for wide in hidden:
                self.body.extend((nn.Linear(width, wide), nn.ReLU()))
                width = wide
            self.body.append(nn.Linear(width, 1))

    def forward(self, columns: Tensor) -> Tensor:
        return self.body(((columns - self.mean) * self.scale).clamp(-6, 6)).squeeze(1)


def fitted(
    layers: Sequence[Layer], groups: Sequence[str], loss: Loss, *, hidden: Sequence[int] = (32, 32), mean: bool = False, seed: int = 0
) -> Ranking:
    """A perceptron after ten epochs of Adam; `mean` takes the mean of all labels of a weight instead of the first."""
    columns = torch.cat([layer.columns(groups) for layer in layers])
    places = torch.cat([torch.stack(layer.places).mean(0) if mean else layer.places[0] for layer in layers])
    which = torch.cat([torch.full_like(layer.start, index) for index, layer in enumerate(layers)])
    model, chance = Perceptron(columns, hidden, seed), seeding.generator(seed, "lever", "order")
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(places), generator=chance).split(ROWS):
            optimizer.zero_grad()
            loss(model(columns[rows]), places[rows], which[rows], chance).backward()
            optimizer.step()
        schedule.step()
    return torch.no_grad()(model.eval())


def squared(scores: Tensor, places: Tensor, layers: Tensor, chance: torch.Generator) -> Tensor:
    return functional.mse_loss(scores, places)


def logistic(top: float) -> Loss:
    """Is a weight among the `top` of its layer?"""
    return lambda scores, places, layers, chance: functional.binary_cross_entropy_with_logits(scores, (places > 1 - top).float())


def pairs(scores: Tensor, places: Tensor, layers: Tensor, chance: torch.Generator) -> Tensor:
    """Which of two weights of a layer grows more?"""
    other = torch.randperm(len(scores), generator=chance)
    same = layers == layers[other]
    wrong = functional.softplus(-(scores - scores[other]) * (places - places[other]).sign())
    return (wrong * same).sum() / same.sum().clamp(min=1)


def across_the_cut(scores: Tensor, places: Tensor, layers: Tensor, chance: torch.Generator) -> Tensor:
    """The same for pairs of which one is among the 5 % that grow most; each of those meets eight others."""
    high, low = (places > 0.95).nonzero().squeeze(1).repeat(8), (places <= 0.95).nonzero().squeeze(1)
    others = low[torch.randint(len(low), (len(high),), generator=chance)]
    return functional.softplus(scores[others] - scores[high]).mean()


def listwise(scores: Tensor, places: Tensor, layers: Tensor, chance: torch.Generator) -> Tensor:
    """The softmax over a layer's weights, of those 5 %."""
    high = places > 0.95
    parts = [functional.log_softmax(scores[layers == layer], 0)[high[layers == layer]].sum() for layer in layers.unique()]
    return -torch.stack(parts).sum() / high.sum().clamp(min=1)


def quantile(scores: Tensor, places: Tensor, layers: Tensor, chance: torch.Generator) -> Tensor:
    """The 90 % quantile of a weight's place."""
    short = places - scores
    return torch.maximum(0.9 * short, -0.1 * short).mean()


def boosted(layers: Sequence[Layer], groups: Sequence[str]) -> Ranking:
    """Gradient-boosted trees on squared error."""
    trees = importlib.import_module("sklearn.ensemble").HistGradientBoostingRegressor(
        max_iter=200, max_leaf_nodes=15, min_samples_leaf=500, learning_rate=0.05, random_state=0
    )
    trees.fit(torch.cat([layer.columns(groups) for layer in layers]).numpy(), torch.cat([layer.places[0] for layer in layers]).numpy())
    return lambda columns: torch.from_numpy(trees.predict(columns.numpy()))


def share(layers: Sequence[Layer], scores: Sequence[Tensor], top: float) -> float:
    """Of each layer's `top` by growth, the share among its `top` by score; over all layers."""
    found = wanted = 0
    for layer, ranked in zip(layers, scores, strict=True):
        count = max(1, round(top * len(ranked)))
        found += int((layer.places[0][ranked.argsort(descending=True, stable=True)[:count]] > 1 - top).sum())
        wanted += count
    return found / wanted


@dataclass(frozen=True)
class Track:
    """The rows of one track, as they come."""

    name: str
    data: dict[int, list[Layer]]
    rows: list[dict[str, str]] = field(default_factory=list)

    def add(self, lever: str, score: Callable[[Layer], Tensor]) -> None:
        """Judge a score."""
        shares = {f"seed {seed}": share(self.data[seed], [score(layer) for layer in self.data[seed]], TOP[self.name]) for seed in JUDGED}
        self.rows.append({"track": self.name, "lever": lever} | {seed: f"{found:.3f}" for seed, found in shares.items()})

    def learned(self, lever: str, ranking: Ranking, groups: Sequence[str] = PRODUCT) -> None:
        """Judge what was fitted to columns of `groups`."""
        self.add(lever, lambda layer: ranking(layer.columns(groups)))


def compare(trainings: Trainings, name: str, *, trees: bool) -> list[dict[str, str]]:
    """All levers of one track, a row each."""
    candidates = name == "candidates"
    orders = {seed: [seed] for seed in (*SOURCES, *JUDGED)} | ({} if candidates else {0: [0, OTHER_ORDER]})
    track = Track(name, {seed: layers_of(trainings, seed, given, candidates=candidates) for seed, given in orders.items()})
    one, three = track.data[0], [layer for seed in SOURCES for layer in track.data[seed]]
    track.add("smallest first", lambda layer: -layer.start.abs())
    track.add("abs(g)", lambda layer: layer.known["product"][:, 1].abs())
    track.add("-g sign(w)", lambda layer: -layer.known["product"][:, 4])
    track.learned("perceptron, squared error", fitted(one, PRODUCT, squared))
    track.learned("the same, another seed", fitted(one, PRODUCT, squared, seed=1))
    track.learned("linear", fitted(one, PRODUCT, squared, hidden=()))
    track.learned("perceptron 128 x 128", fitted(one, PRODUCT, squared, hidden=(128, 128)))
    for lever, loss in LOSSES.items():
        track.learned(f"loss: {lever}", fitted(one, PRODUCT, loss))
    for groups in (*((group,) for group in MORE), MORE):
        track.learned(f"features: {', '.join(groups)}", fitted(one, (*PRODUCT, *groups), squared), (*PRODUCT, *groups))
    track.learned("three sources", fitted(three, PRODUCT, squared))
    track.learned("three sources, all features", fitted(three, EVERY, squared), EVERY)
    track.learned("three sources, all features, logistic at 20 %", fitted(three, EVERY, logistic(0.2)), EVERY)
    if trees:
        track.learned("boosted trees", boosted(one, PRODUCT))
        track.learned("boosted trees, three sources, all features", boosted(three, EVERY), EVERY)
    (_with_the_probe if candidates else _of_two_orders)(track, one, three)
    return track.rows


def _of_two_orders(track: Track, one: list[Layer], three: list[Layer]) -> None:
    track.learned("label: mean of two trainings in other orders", fitted(one, PRODUCT, squared, mean=True))
    other = [Layer(layer.known, layer.start, layer.places[1:]) for layer in one]
    found = share(other, [layer.places[0] for layer in one], TOP[track.name])
    track.rows.append({"track": track.name, "lever": "a second full training, other order (source 0)", "seed 0": f"{found:.3f}"})


def _with_the_probe(track: Track, one: list[Layer], three: list[Layer]) -> None:
    groups = (*EVERY, "probe")
    track.add("the probe", lambda layer: layer.known["probe"].squeeze(1))
    track.learned("the probe, three sources, all features", fitted(three, groups, squared), groups)
    track.learned("the same, logistic at 20 %", fitted(three, groups, logistic(0.2)), groups)


LOSSES: dict[str, Loss] = {
    "logistic at 5 %": logistic(0.05),
    "logistic at 20 %": logistic(0.2),
    "pairs": pairs,
    "pairs across the cut": across_the_cut,
    "listwise": listwise,
    "90 % quantile": quantile,
}


def main() -> None:
    """Compare on both tracks and report."""
    parser = options(__doc__)
    parser.add_argument("--data", required=True, help="CIFAR-10 as Parquet files")
    parser.add_argument("--out", type=Path, required=True, help="folder of the trainings")
    parser.add_argument("--boosted", action="store_true", help="boosted trees as well")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    trainings = Trainings(args.data, args.out)
    report("scorer_levers", [row for track in TOP for row in compare(trainings, track, trees=args.boosted)], args)


if __name__ == "__main__":
    main()
