"""The five lines of the library on the network families that people have: prune, hold, compact and export, random weights.

What path criteria and the compaction must do on them by themselves is in test_path_families.py and test_compaction_families.py.
"""

from pathlib import Path

import pytest
import torch
from torch import nn

import autosparse
from autosparse.library.compaction import difference, size
from autosparse.models.channels.examples import noise, tensors
from autosparse.models.networks.calls import call, logits_of
from autosparse.models.seeding import generator
from tests.library.test_compaction_families import FAMILIES
from tests.library.test_path_families import SMALL, WHOLE, built

QUICK = ("mobilenet_v2", "shufflenet", "vit", "timm resnet", "timm mixer", "transformers bert")
EXPORTED = ("vit",)  # of the quick ones: the exporter takes seconds
HUGE = ("vit_b_16",)  # its family is there in a small build
STEPS = 20


def pictures(pixels: int) -> torch.Tensor:
    return torch.randn(4, 3, pixels, pixels, generator=generator(0, "pictures"))


SMALL_ONES = {f"small {name}": (build, pictures(pixels)) for name, (build, pixels) in SMALL.items()}
WHOLE_ONES = {name: (build, pictures(pixels)) for name, (build, pixels) in WHOLE.items() if name not in HUGE}
OTHERS = {name: family for name, family in FAMILIES.items() if name.startswith("transformers")}
MATRIX = SMALL_ONES | WHOLE_ONES | OTHERS
QUICK_ONES = [name for name in MATRIX if name.removeprefix("small ") in QUICK and name not in WHOLE_ONES]


@pytest.mark.parametrize("name", [pytest.param(name, marks=[] if name in QUICK_ONES else pytest.mark.slow) for name in MATRIX])
def test_a_family_is_pruned_held_compacted_and_exported(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if name not in OTHERS:
        monkeypatch.setattr("autosparse.models.criteria.synaptic_flow.ITERATIONS", 20)  # all 100 in test_path_families.py
    build, inputs = MATRIX[name]
    network, labels = built(build), torch.arange(len(next(tensors(inputs)))) % 2
    example = noise(inputs, generator(0, "example"))

    mask = autosparse.prune(network, example=inputs, method="synflow", density=0.05, warn=False)
    assert mask.density == pytest.approx(0.05, abs=1e-4) and mask.collapsed_layers() == []
    snip = autosparse.prune(network, [(inputs, labels)], method="snip", density=0.05, warn=False)
    assert snip.density == pytest.approx(0.05, abs=1e-4) and snip.keys() == mask.keys()

    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.05)
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    with autosparse.hold(network, mask, optimizer, example=inputs) as held:
        for _ in range(STEPS):
            optimizer.zero_grad()
            nn.functional.cross_entropy(logits_of(call(network.train(), inputs)), labels).backward()
            optimizer.step()
            assert held.violations() == 0
    assert any((network.state_dict()[key] != tensor)[mask[key]].any() for key, tensor in before.items() if key in mask)  # it trained

    small = autosparse.compact(network.eval(), inputs, mask)
    assert size(small, inputs).parameters <= size(network, inputs).parameters
    with torch.no_grad():
        assert difference(*(list(tensors(call(net, example))) for net in (small, network))) == ""
    if name not in QUICK_ONES or name.removeprefix("small ") in EXPORTED:
        assert autosparse.export(small, inputs, tmp_path / "small.onnx").bytes > 0
