"""A task of your own: a small transformer that learns to write like Python's manual, which every Python has on board.

From the folder above this one: autosparse run --recipe examples.own_text:recipe
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from pydoc_data.topics import topics
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, scaled_dot_product_attention

from autosparse import Metric
from autosparse.flows.recipes import smoke
from autosparse.models.specs.experiment import ExperimentSpec
from autosparse.models.specs.fanout import TargetSpec
from autosparse.models.specs.run_specs import DataSpec, NetworkSpec

CHARACTERS, LENGTH = 128, 32  # ASCII; characters of context


class Passages:
    """Pieces of a text, each with the same piece one character later, which is what has to be guessed."""

    def __init__(self, text: str) -> None:
        self.codes = torch.tensor([min(ord(letter), CHARACTERS - 1) for letter in text])

    def __len__(self) -> int:
        return (len(self.codes) - 1) // LENGTH

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        start = number * LENGTH
        return self.codes[start : start + LENGTH], self.codes[start + 1 : start + LENGTH + 1]


class Writing:
    """What autosparse asks of a task: data, loss, metrics."""

    metric = Metric(name="perplexity", better="lower", point=0.05)

    def __init__(self) -> None:
        self.keywords = {"characters": CHARACTERS}  # for the network below
        manual = "\n".join(topics[name] for name in sorted(topics))
        split = 120_000
        self.train, self.test = Passages(manual[:split]), Passages(manual[split : split + 30_000])

    def loss(self, network: nn.Module, batch: Any) -> Tensor:
        """Nats per character."""
        codes, following = batch
        return cross_entropy(network(codes).flatten(0, 1), following.flatten())

    def measure(self, network: nn.Module, batch: Any) -> Mapping[str, Tensor]:
        """Sums over the characters of a batch."""
        characters = torch.tensor(batch[1].numel(), device=batch[1].device)
        return {"nats": self.loss(network, batch).double() * characters, "characters": characters}

    def metrics(self, sums: Mapping[str, Tensor]) -> Mapping[str, float]:
        """How many characters a network hesitates between."""
        return {"perplexity": math.exp(float(sums["nats"]) / float(sums["characters"]))}


class Block(nn.Module):
    """Causal attention and two linear layers, each on a residual stream."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query_key_value, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, states: Tensor) -> Tensor:
        """States of each character (batch, length, width)."""
        heads = self.query_key_value(self.before(states)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        seen = scaled_dot_product_attention(heads[0], heads[1], heads[2], is_causal=True)
        states = states + self.out(seen.transpose(1, 2).flatten(2))
        return states + self.narrow(nn.functional.gelu(self.wide(self.between(states))))


class Writer(nn.Module):
    """A decoder-only transformer over characters."""

    def __init__(self, characters: int, width: int = 32, depth: int = 2) -> None:
        super().__init__()
        self.letters, self.places = nn.Embedding(characters, width), nn.Parameter(0.02 * torch.randn(LENGTH, width))
        self.blocks = nn.Sequential(*(Block(width, heads=4) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, characters)

    def forward(self, codes: Tensor) -> Tensor:
        """Logits of the character after each (batch, length, characters)."""
        return self.head(self.norm(self.blocks(self.letters(codes) + self.places[: codes.shape[1]])))


def recipe() -> ExperimentSpec:
    """The smallest recipe, with this task and network in the place of digits."""
    base, network = smoke(), NetworkSpec(name="examples.own_text:Writer")
    train = replace(base.irp.train, epochs=2, batch_size=32, lr=0.3, weight_decay=0.0)
    return replace(
        base,
        data=DataSpec(name="examples.own_text:Writing"),
        irp=replace(base.irp, networks=(network,), train=train, min_per_layer=2),
        scoring=replace(base.scoring, batch_size=32),
        fanout=replace(
            base.fanout, targets=(TargetSpec(network=network),), methods=("random", "magnitude", "snip", "synflow", "scorer"), train=train
        ),
    )
