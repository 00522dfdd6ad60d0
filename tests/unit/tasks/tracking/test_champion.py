"""Who holds the alias `champion`: the better of two on the same held-out rows; else the one that learned from more."""

import pytest

from autosparse.tasks.tracking.champion import beats

REAL = {"held_out": "0.4", "data_digest": "cifar", "label": "growth", "sources": "resnet8", "held_out_on": "seeds", "rows": "300000"}


@pytest.mark.parametrize(
    ("changes", "takes"),
    [
        ({"held_out": "0.41"}, True),
        ({"held_out": "0.39", "rows": "900000"}, False),  # of the same held-out rows the figure counts
        ({"held_out": "0.9", "data_digest": "digits", "rows": "5000"}, False),  # a smoke run
        ({"held_out": "0.1", "data_digest": "imagenet", "rows": "25000000"}, True),
        ({"held_out": "0.9", "label": "survival"}, False),
        ({"held_out": "0.9", "sources": "vgg16", "rows": "400000"}, True),
        ({"held_out": "0.9", "held_out_on": "layers"}, False),
    ],
)
def test_figures_are_compared_where_they_are_of_the_same_held_out_rows(changes: dict[str, str], takes: bool) -> None:
    assert beats(REAL | changes, REAL) is takes


def test_versions_of_earlier_releases_have_a_figure_alone() -> None:
    assert beats(REAL, {"held_out": "0.3"}) and not beats(REAL, {"held_out": "0.5"}) and beats(REAL, {})
