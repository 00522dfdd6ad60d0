"""Networks of other people are compacted to the same function: random weights, small images, channels killed by hand and by SynFlow."""

from collections.abc import Callable
from copy import deepcopy
from importlib import import_module
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from autosparse.library.compaction import compact, compact_with_mask, size
from autosparse.models.channels.dead import dead_channel_parameters
from autosparse.models.criteria.registry import CRITERIA
from autosparse.models.masks import mask as masks
from autosparse.models.masks.mask import Mask
from autosparse.models.networks.registry import NETWORKS
from autosparse.models.networks.torchvision_guard import import_torchvision
from autosparse.models.seeding import generator, scoped
from tests.marks import quick

models = import_torchvision().models  # before timm and transformers, which import it as well
TRANSFORMER = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
WORDS = {"input_ids": torch.arange(16).view(2, 8), "attention_mask": torch.ones(2, 8, dtype=torch.long)}


def of(package: str) -> Any:
    return import_module(package)


def hugging_face(kind: str, task: str, **settings: int) -> nn.Module:
    package = of("transformers")
    return getattr(package, f"{kind}{task}")(getattr(package, f"{kind}Config")(**TRANSFORMER, **settings))


def images(pixels: int) -> Tensor:
    return torch.randn(1, 3, pixels, pixels, generator=torch.Generator().manual_seed(0))


FAMILIES: dict[str, tuple[Callable[[], nn.Module], Any]] = {
    **{
        name: (lambda name=name: getattr(models, name)(weights=None, num_classes=10), images(32))
        for name in ("resnet18", "resnet50", "mobilenet_v2", "efficientnet_b0", "densenet121", "regnet_y_400mf")
    },
    "vgg11": (lambda: zero_biases(models.vgg11(weights=None, num_classes=10)), images(32)),
    "mobilenet_v3_small": (lambda: models.mobilenet_v3_small(weights=None, num_classes=10), images(32)),
    "shufflenet_v2_x0_5": (lambda: models.shufflenet_v2_x0_5(weights=None, num_classes=10), images(32)),
    "googlenet": (lambda: models.GoogLeNet(num_classes=10, aux_logits=True, init_weights=False), images(64)),
    "convnext_tiny": (lambda: models.convnext_tiny(weights=None, num_classes=10), images(32)),
    "swin_t": (lambda: models.swin_t(weights=None, num_classes=10), images(32)),
    "vit": (lambda: models.VisionTransformer(32, 8, 2, 4, 32, 64, num_classes=10), images(32)),
    "timm vit_tiny": (
        lambda: of("timm").create_model("vit_tiny_patch16_224", img_size=32, patch_size=8, depth=2, num_classes=10),
        images(32),
    ),
    "timm convnext_atto": (lambda: of("timm").create_model("convnext_atto", num_classes=10), images(32)),
    "timm mixer": (lambda: of("timm").create_model("mixer_s32_224", img_size=64, num_classes=10), images(64)),
    "transformers bert": (
        lambda: hugging_face("Bert", "ForSequenceClassification", vocab_size=50),
        WORDS,
    ),
    "transformers vit": (
        lambda: hugging_face("ViT", "ForImageClassification", image_size=32, patch_size=8),
        {"pixel_values": images(32)},
    ),
}
LOSES_CHANNELS_TO_SYNFLOW = ("resnet18", "mobilenet_v3_small", "densenet121")


def zero_biases(network: nn.Module) -> nn.Module:
    """Biases as most networks begin: torch's own are random, and a dead channel's would be a constant."""
    for name, param in network.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(param)
    return network


def built(name: str) -> tuple[nn.Module, Any]:
    factory, example = FAMILIES[name]
    with scoped(0, name):
        return factory(), example


def killed(network: nn.Module, share: float = 0.3) -> Mask:
    """Half of the weights, and of each layer about a `share` of the rows and columns less."""
    stream, mask = torch.Generator().manual_seed(0), {}
    for name, weight in masks.prunable(network).items():
        keep = torch.rand(weight.shape, generator=stream) < 0.5
        keep[torch.rand(weight.shape[0], generator=stream) < share] = False
        if weight.shape[1] > 8:  # not all of a depthwise layer
            keep[:, torch.rand(weight.shape[1], generator=stream) < share] = False
        mask[name] = keep
    return mask


@pytest.mark.parametrize("name", quick(FAMILIES, ["resnet18", "mobilenet_v2", "densenet121", "vit", "transformers vit"]))
def test_channels_killed_by_hand_leave_and_the_function_stays(name: str) -> None:
    network, example = built(name)
    small, mask = compact_with_mask(network, example, killed(network))
    before, after = size(network, example), size(small, example)
    assert after.parameters < 0.97 * before.parameters and after.multiply_adds < 0.97 * before.multiply_adds
    assert masks.violations(small, mask) == 0 and set(mask) == set(masks.prunable(small))
    again = size(compact(small, example, mask), example)
    assert again == after  # at once, all of it


@pytest.mark.parametrize("name", quick(LOSES_CHANNELS_TO_SYNFLOW, ["mobilenet_v3_small"]))
def test_channels_that_synflow_cuts_off_leave_and_the_function_stays(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autosparse.models.criteria.synaptic_flow.ITERATIONS", 5)
    network, example = built(name)
    criterion = CRITERIA["synflow"]
    scores = criterion.score(network, [(example, torch.zeros(1, dtype=torch.long))], generator(0, "test"), density=0.02)
    small = compact(network, example, criterion.allocate(scores, 0.02))
    assert size(small, example).parameters < 0.9 * size(network, example).parameters


def test_resnet20_at_density_02_is_more_than_eight_times_smaller() -> None:
    with scoped(0, "resnet20"):
        network = NETWORKS["resnet20"](image_shape=(3, 32, 32), num_classes=10)
    criterion, image = CRITERIA["synflow"], images(32)
    scores = criterion.score(network, [(image, torch.zeros(1, dtype=torch.long))], generator(0, "test"), density=0.02)
    small = compact(network, image, criterion.allocate(scores, 0.02))
    assert size(network, image).parameters > 8 * size(small, image).parameters


@pytest.mark.parametrize(
    ("name", "weight", "rows", "layer", "heads"),
    [
        ("timm vit_tiny", "blocks.0.attn.qkv.weight", range(448, 512), "blocks.0.attn", "num_heads"),  # the second third of the values
        ("transformers bert", "bert.encoder.layer.1.attention.self.value.weight", range(16), "bert.encoder.layer.1.attention.self", None),
    ],
)
def test_a_head_without_values_leaves(name: str, weight: str, rows: range, layer: str, heads: str | None) -> None:
    network, example = built(name)
    zero_biases(network)
    mask = masks.full(masks.prunable(network))
    mask[weight][list(rows)] = False
    small = compact(network, example, mask)
    attribute = heads or "num_attention_heads"
    before, after = (getattr(net.get_submodule(layer), attribute) for net in (network, small))
    assert after == before - 1
    hidden = 192 if heads else 32
    saved = 4 * (len(rows) * hidden) + 3 * len(rows)  # queries, keys, values and what reads them; three biases
    assert size(network, example).parameters - size(small, example).parameters == saved


class Everything(nn.Module):
    """Residual, concatenated, depthwise, gated and grouped channels, BatchNorm and GroupNorm, small enough for 200 steps."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU())
        self.block = nn.Sequential(nn.Conv2d(12, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12), nn.Hardswish(), nn.Conv2d(12, 12, 1))
        self.depth = nn.Sequential(nn.Conv2d(12, 12, 3, padding=1, groups=12), nn.BatchNorm2d(12), nn.SiLU())
        self.squeeze, self.excite = nn.Linear(12, 6), nn.Linear(6, 12)
        self.groups = nn.Sequential(nn.Conv2d(12, 12, 3, padding=1, groups=3), nn.GroupNorm(6, 12), nn.GELU())
        self.out = nn.Sequential(nn.Linear(24, 16), nn.LayerNorm(16), nn.Linear(16, 8), nn.Sigmoid(), nn.Linear(8, 4))

    def forward(self, values: Tensor) -> Tensor:
        stream = self.stem(values)
        stream = stream + self.block(stream)
        stream = self.depth(stream)
        gate = torch.sigmoid(self.excite(self.squeeze(stream.mean((2, 3))).relu()))
        both = torch.cat([stream, self.groups(stream * gate[:, :, None, None])], 1)
        return self.out(both.mean((2, 3)))


CONTRACT = {
    "everything": (Everything, (1, 8, 8), 200),
    "resnet18": (FAMILIES["resnet18"][0], (3, 64, 64), 3),
    "mobilenet_v2": (FAMILIES["mobilenet_v2"][0], (3, 64, 64), 3),
    "vit": (FAMILIES["vit"][0], (3, 32, 32), 20),
}


@pytest.mark.parametrize("name", quick(CONTRACT, ["everything", "vit"]))
def test_held_big_and_compacted_small_are_one_function_through_training(name: str) -> None:
    factory, shape, steps = CONTRACT[name]
    with scoped(1, name):
        big = factory().double().train()
    for module in big.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    stream = torch.Generator().manual_seed(0)
    example = torch.randn(2, *shape, generator=stream, dtype=torch.float64)
    mask = killed(big, 0.1 if name == "everything" else 0.3)
    held = dead_channel_parameters(big, mask, example)
    hold(big, mask, held)
    small, small_mask = compact_with_mask(big, example, mask)
    assert masks.total(small_mask) < 0.95 * masks.total(mask) and small.training
    steppers = [(net, torch.optim.SGD(net.parameters(), lr=0.02, momentum=0.9, weight_decay=1e-3)) for net in (big, small)]
    start = deepcopy(big)
    for _ in range(steps):
        batch, labels = torch.randn(8, *shape, generator=stream, dtype=torch.float64), torch.randint(4, (8,), generator=stream)
        losses = []
        for net, optimizer in steppers:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(net(batch), labels)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        hold(big, mask, held)
        masks.apply_(small, small_mask)
        assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    images_again = torch.randn(4, *shape, generator=stream, dtype=torch.float64)
    for mode in (big.train, big.eval):
        mode()
        small.train(big.training)
        wanted = big(images_again).detach()
        assert float((small(images_again).detach() - wanted).abs().max()) < 1e-5 * float(wanted.abs().max())
    assert float((start.eval()(images_again).detach() - wanted).abs().max()) > 1e-3 * float(wanted.abs().max())  # it has been trained
    after = compact(big, example, mask)
    assert [param.shape for param in after.parameters()] == [param.shape for param in small.parameters()]


@torch.no_grad()
def hold(network: nn.Module, mask: Mask, held: dict[str, Tensor]) -> None:
    masks.apply_(network, mask)
    params = dict(network.named_parameters())
    for name, entries in held.items():
        params[name].masked_fill_(entries, 0)
