"""Path criteria on the network families that people have: at density .05 no layer is emptied, and the full mask is whole.

Each family in a small build; as their makers configure them in a test marked slow. Random weights, nothing is downloaded.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest
import torch
from torch import nn

from autosparse.models import seeding
from autosparse.models.criteria.registry import CRITERIA
from autosparse.models.errors import SpecError
from autosparse.models.masks import mask as masks
from autosparse.models.masks.gates import effective, effective_density
from autosparse.models.networks.torchvision_guard import import_torchvision
from tests.marks import quick

zoo: Any = import_torchvision().models  # before timm, which imports torchvision as well
METHODS = ("synflow", "smallest_paths")
CLASSES = 10


def own(name: str, **kwargs: Any) -> Callable[[], nn.Module]:
    return lambda: getattr(zoo, name)(num_classes=CLASSES, **kwargs)


def other(name: str, **kwargs: Any) -> Callable[[], nn.Module]:
    return lambda: import_module("timm").create_model(name, num_classes=CLASSES, **kwargs)


def _timm(module: str) -> Any:
    return import_module(f"timm.models.{module}")


def _swin_v2() -> nn.Module:
    swin = import_module("torchvision.models.swin_transformer")
    v2 = {"block": swin.SwinTransformerBlockV2, "downsample_layer": swin.PatchMergingV2}
    return zoo.SwinTransformer([4, 4], 16, [2, 2], [2, 2], [4, 4], num_classes=CLASSES, **v2)


SMALL: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "mobilenet_v2": (own("mobilenet_v2", width_mult=0.25), 32),
    "shufflenet": (lambda: zoo.ShuffleNetV2([1, 2, 1], [8, 16, 32, 64, 128], num_classes=CLASSES), 32),
    "densenet": (lambda: zoo.DenseNet(8, (2, 2, 2), 16, num_classes=CLASSES), 32),
    "vit": (lambda: zoo.VisionTransformer(16, 4, 3, 2, 32, 64, num_classes=CLASSES), 16),
    "swin": (lambda: zoo.SwinTransformer([4, 4], 16, [2, 2], [2, 2], [2, 2], num_classes=CLASSES), 32),
    "swin v2": (_swin_v2, 32),  # its windows are full; where they are mostly padding the position bias carries too little
    "timm mobilenetv3": (other("mobilenetv3_small_050"), 32),
    "timm vit": (other("vit_tiny_patch16_224", img_size=32, depth=2, embed_dim=48, num_heads=3), 32),
    "timm convnext": (other("convnext_atto", depths=(2, 2, 2, 2), dims=(8, 16, 32, 64)), 32),
    "timm resnet": (lambda: _timm("resnet").ResNet(_timm("resnet").BasicBlock, [1] * 4, CLASSES, channels=(8, 16, 32, 64)), 32),
    "timm mixer": (lambda: _timm("mlp_mixer").MlpMixer(CLASSES, 32, patch_size=8, num_blocks=2, embed_dim=32), 32),
}
WHOLE: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "resnet50": (own("resnet50"), 64),
    "mobilenet_v2": (own("mobilenet_v2"), 32),
    "mobilenet_v3_small": (own("mobilenet_v3_small"), 32),
    "efficientnet_b0": (own("efficientnet_b0"), 32),
    "convnext_tiny": (own("convnext_tiny"), 32),
    "densenet121": (own("densenet121"), 32),
    "swin_t": (own("swin_t"), 32),
    "vit_b_16": (own("vit_b_16", image_size=32), 32),
    "regnet_y_400mf": (own("regnet_y_400mf"), 32),
    "shufflenet_v2_x1_0": (own("shufflenet_v2_x1_0"), 32),
    "googlenet": (own("googlenet", aux_logits=True, init_weights=False), 64),
    "timm vit_tiny": (other("vit_tiny_patch16_224", img_size=32), 32),
    "timm convnext": (other("convnext_atto"), 32),
    "timm convnextv2": (other("convnextv2_atto"), 32),
    "timm efficientnet": (other("efficientnet_lite0"), 32),
    "timm resnet": (other("resnet18"), 32),
    "timm mixer": (other("mixer_s32_224", img_size=64), 64),
}


def built(build: Callable[[], nn.Module]) -> nn.Module:
    with seeding.scoped(0, "weights"):
        return build()


def mask_of(network: nn.Module, method: str, size: int, density: float) -> masks.Mask:
    batches = [(torch.zeros(2, 3, size, size), torch.zeros(2, dtype=torch.long))]
    scores = CRITERIA[method].score(network, batches, seeding.generator(0), density=density)
    return CRITERIA[method].allocate(scores, density)


def check(build: Callable[[], nn.Module], size: int, method: str) -> None:
    network = built(build)
    mask = mask_of(network, method, size, 0.05)
    assert masks.collapsed_layers(mask) == []
    assert effective_density(network, mask, (3, size, size)) > 0.045


@pytest.mark.parametrize("method", quick(METHODS, ["synflow"]))
@pytest.mark.parametrize("name", SMALL)
def test_no_layer_is_emptied(name: str, method: str) -> None:
    check(*SMALL[name], method)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", WHOLE)
def test_no_layer_of_the_network_as_it_is_made_is_emptied(name: str, method: str) -> None:
    check(*WHOLE[name], method)


@pytest.mark.parametrize("name", SMALL)
def test_a_full_mask_is_whole_but_for_taps_that_only_see_padding(name: str) -> None:
    build, size = SMALL[name]
    network = built(build)
    found = effective(network, masks.full(masks.prunable(network)), (3, size, size))
    for layer, alive in found.items():
        middle = alive if alive.dim() < 4 else alive[:, :, alive.shape[2] // 2, alive.shape[3] // 2]
        assert middle.all(), layer
        assert alive.all() or alive.shape[2:] != (1, 1), layer


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("method", ["phew", "ntk_sap"])
def test_the_other_walkers_run_on_them(name: str, method: str) -> None:
    build, size = SMALL[name]
    network = built(build)
    mask = mask_of(network, method, size, 0.2)
    assert mask.keys() == masks.prunable(network).keys() and masks.density(mask) == pytest.approx(0.2, abs=1e-3)


def three(activation: type[nn.Module], norm: Callable[[int], nn.Module] | None = None) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in ((1, 32), (32, 64), (64, 64)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), *([norm(outputs)] if norm else []), activation()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, CLASSES))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("activation", [nn.ReLU6, nn.SiLU, nn.Tanh])
def test_twins_but_for_the_activation_get_the_same_layers(activation: type[nn.Module], method: str) -> None:
    batches = [(torch.zeros(2, 1, 8, 8), torch.zeros(2))]
    for density in (0.1, 0.05):
        found = []
        for kind in (nn.ReLU, activation):
            network = built(lambda kind=kind: three(kind))
            scores = CRITERIA[method].score(network, batches, seeding.generator(0), density=density)
            found.append(masks.layer_densities(CRITERIA[method].allocate(scores, density)))
        assert found[0] == pytest.approx(found[1], rel=0.02)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("norm", [lambda width: nn.GroupNorm(4, width), nn.InstanceNorm2d, lambda width: nn.LayerNorm([width, 8, 8])])
def test_norms_that_are_not_batch_norm_empty_no_layer(norm: Callable[[int], nn.Module], method: str) -> None:
    network = built(lambda: three(nn.ReLU, norm))
    scores = CRITERIA[method].score(network, [(torch.zeros(2, 1, 8, 8), torch.zeros(2))], seeding.generator(0), density=0.1)
    densities = masks.layer_densities(CRITERIA[method].allocate(scores, 0.1))
    assert min(densities.values()) > 0.05


def test_random_walks_refuse_transposed_convolutions_in_one_line() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ConvTranspose2d(4, 2, 2), nn.Flatten(), nn.Linear(2 * 81, 2))
    with pytest.raises(SpecError, match="network: 'ConvTranspose2d 1.weight' is not allowed"):
        mask_of(network, "phew", 8, 0.2)
