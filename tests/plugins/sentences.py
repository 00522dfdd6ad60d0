"""A task of Hugging Face's kind: is a piece of Python's manual about classes or about strings? Tokens are characters."""

from pydoc_data.topics import topics
from typing import Any

import torch

LENGTH, VOCABULARY = 24, 128


def pieces(topic: str, label: int) -> list[dict[str, Any]]:
    """Examples as a collator of transformers makes them, with a mask of attention."""
    codes = torch.tensor([min(ord(letter), VOCABULARY - 1) for letter in topics[topic]])
    return [
        {"input_ids": part, "attention_mask": torch.ones(LENGTH, dtype=torch.int64), "labels": label}
        for part in codes.split(LENGTH)
        if len(part) == LENGTH
    ]


class Sentences:
    """The network says its loss itself; the metric is the accuracy."""

    def __init__(self) -> None:
        every = [one for pair in zip(pieces("class", 0), pieces("formatstrings", 1), strict=False) for one in pair]
        self.train, self.test = every[:-64], every[-64:]
        self.keywords = {"num_classes": 2, "vocab_size": VOCABULARY}
