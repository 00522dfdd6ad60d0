"""`prune` at a coarser grain than weights: the mask is what compaction makes small."""

from typing import Any

import pytest
import torch
from torch import nn

import autosparse
from autosparse.library import latency
from autosparse.library.compaction import size
from autosparse.models.errors import SpecError
from autosparse.models.masks.prunable import prunable
from autosparse.models.networks.build import build_network
from autosparse.models.networks.latency import latencies
from autosparse.models.specs.run_specs import NetworkSpec


def network() -> nn.Module:
    return build_network(NetworkSpec(name="resnet8"), image_shape=(3, 16, 16), num_classes=4, seed=0)


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    stream = torch.Generator().manual_seed(0)
    return torch.randn(8, 3, 16, 16, generator=stream), torch.randint(4, (8,), generator=stream)


def prune(**given: Any) -> Any:
    return autosparse.prune(network(), [batch()], warn=False, **{"density": 0.25, "method": "snip"} | given)


def test_channels_leave_a_network_of_the_share_that_was_asked_for() -> None:
    mask, model, example = prune(grain="channels"), network(), batch()[0][:1]
    small = autosparse.compact(model, example, mask)
    before, after = (size(each, example) for each in (model, small))
    assert 0.24 < after.multiply_adds / before.multiply_adds <= 0.25
    assert mask.about.method == "snip(grain=channels)"


def test_the_name_of_a_method_and_the_argument_are_one_thing() -> None:
    named, given = prune(method="snip(grain=channels,cost=weights)"), prune(grain="channels", cost="weights")
    assert named.checksum == given.checksum and named.density <= 0.25


def test_several_shares_come_out_of_one_scoring() -> None:
    first, second = prune(grain="channels", density=[0.5, 0.25])
    assert second.checksum == prune(grain="channels").checksum and second.kept < first.kept


def test_random_needs_an_example_at_the_grain_of_channels() -> None:
    with pytest.raises(SpecError, match="an example, or at least one batch, for random"):
        autosparse.prune(network(), density=0.5, method="random", grain="channels")
    assert autosparse.prune(network(), density=0.5, method="random", grain="channels", example=batch()[0]).density < 0.6


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ({"grain": "channel"}, "grain: 'channel' is not allowed"),
        ({"grain": "channels", "cost": "seconds"}, "cost: 'seconds' is not allowed"),
        ({"cost": "latency"}, "cost: 'latency' is not allowed; allowed: with whole channels alone"),
        ({"grain": "mixed", "cost": "latency"}, "cost: 'latency' is not allowed; allowed: with whole channels alone"),
        ({"method": "snip(grain=channels,cost=weights)", "cost": "latency"}, "cost: 'latency' is not allowed"),
        ({"grain": "channels", "method": "snip(grain=channels)"}, "grain: 'channels' is not allowed; allowed: none beside"),
        ({"grain": "channels", "density": {"head.weight": 0.5}}, "density: 'one of each layer' is not allowed"),
        ({"grain": "channels", "density": 1e-5}, "density: 1e-05 is not allowed; allowed: at least the price of one channel"),
        ({"method": "snip(grain=channels,widths=rates)"}, "method.snip.widths: 'rates' is not allowed"),
        ({"method": "snipp(grain=channels)"}, "method: 'snipp' is not known"),
        ({"method": "snip(grain=channels,inner=1)"}, "inner"),
    ],
)
def test_what_is_wrong_is_one_line(given: dict[str, Any], what: str) -> None:
    with pytest.raises(autosparse.AutosparseError, match=r".*") as error:
        prune(**given)
    assert what in str(error.value) and "\n" not in str(error.value)


def test_a_latency_becomes_a_share_of_the_multiply_adds_that_gives_the_same_mask_without_a_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "LOOKS", 4)
    monkeypatch.setattr(latency, "SECONDS", 0.1)
    example = torch.zeros(8, 3, 32, 32)
    wide = build_network(NetworkSpec(name="resnet8", width=48), image_shape=(3, 32, 32), num_classes=4, seed=0)
    labels = torch.zeros(8, dtype=torch.long)

    def by_density(network: nn.Module, batches: Any, generator: Any, *, head: bool, density: float) -> dict[str, torch.Tensor]:
        sign = 1 if density == 0.4 else -1  # scores of the latency itself would give other masks than those of its share
        return {name: sign * weight.detach().abs() for name, weight in prunable(network, head=head).items()}

    asked: dict[str, Any] = {"method": by_density, "grain": "channels", "example": example, "warn": False}
    mask = autosparse.prune(wide, [(example, labels)], cost="latency", density=0.4, **asked)
    assert mask.about.density is not None and 0.005 < mask.about.density < 0.6
    again = autosparse.prune(wide, [(example, labels)], density=mask.about.density, **asked)
    assert again.checksum == mask.checksum
    (note,) = mask.about.notes
    assert note.startswith(f"{mask.about.density:g} of the multiply-adds are left") and "of the dense one's time" in note
    small = autosparse.compact(wide, example, mask).eval()
    (milliseconds, dense), _ = latencies([small, wide.eval()], example, seconds=0.3, most=100)
    assert milliseconds < 0.7 * dense  # .4 was asked for; other processes take their part


def test_a_latency_that_no_width_reaches_is_one_line() -> None:
    with pytest.raises(SpecError, match=r"density: 0\.001 is not allowed; allowed: at least .* which one channel per layer"):
        prune(grain="channels", cost="latency", density=0.001)
