"""Widths are bred at the share, and a training that has ended is not done again."""

import json
import random

import pytest
import torch

from benchmarks.width_search import JUDGES, RULES, Search, bred


@pytest.fixture(scope="module")
def search(tmp_path_factory: pytest.TempPathFactory) -> Search:
    return Search("", tmp_path_factory.mktemp("search") / "done.jsonl", 0.125)


def test_rules_and_children_cost_at_most_the_share_and_nearly_all_of_it(search: Search) -> None:
    units, chance = search.grained.units, random.Random(0)
    uniform = search.by_rule(RULES[0])
    assert uniform == search.scaled([1.0] * 6) == (11, 11, 22, 22, 46, 46)  # sqrt(1 / 8) of 32, 32, 64, 64, 128, 128 is 11.3 and so on
    for widths in (uniform, search.by_rule(RULES[1]), *(search.changed(uniform, chance) for _ in range(3))):
        stays = torch.cat([torch.arange(size) < width for size, width in zip(units.sizes, widths, strict=True)])
        assert 0.12 < search.grained.price(stays) / search.grained.price(torch.ones_like(stays)) <= 0.125


def test_what_has_been_trained_is_read_and_the_best_comes_first(search: Search) -> None:
    lines = [{"widths": [1] * 6, "seed": JUDGES[0], "accuracy": 0.5}, {"widths": [2] * 6, "seed": JUDGES[0], "accuracy": 0.6}]
    search.out.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert bred(search, [(1,) * 6, (2,) * 6], minutes=0, mu=1, seed=0) == [(2,) * 6, (1,) * 6]
