"""Networks of timm and transformers by name: seeds, images, classes, and what is refused. Nothing is downloaded."""

import sys
from typing import Any

import pytest
import torch
from torch import nn

from autosparse.models.errors import SpecError
from autosparse.models.networks.build import build_network
from autosparse.models.networks.registry import find_builder
from autosparse.models.specs.json_object import JsonObject
from autosparse.models.specs.run_specs import NetworkSpec

SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
VIT = SMALL | {"patch_size": 4}


def build(name: str, *, shape: tuple[int, int, int] = (3, 32, 32), seed: int = 0, init: Any = "auto", **keywords: Any) -> nn.Module:
    spec = NetworkSpec(name=name, init=init, keywords=JsonObject(keywords))
    return build_network(spec, image_shape=shape, num_classes=7, seed=seed)


@pytest.mark.parametrize(("name", "keywords"), [("timm:vit_tiny_patch16_224", {"depth": 1}), ("timm:resnet10t", {}), ("hf:vit", VIT)])
def test_a_seed_gives_the_same_bits(name: str, keywords: dict[str, Any]) -> None:
    before = torch.get_rng_state()
    one, again, other = (build(name, seed=seed, **keywords).state_dict() for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one[key], again[key]) for key in one)
    assert any(not torch.equal(one[key], other[key]) for key in one)


def test_timm_takes_images_classes_and_keywords() -> None:
    network = build("timm:vit_tiny_patch16_224", shape=(1, 32, 48), depth=2, patch_size=8)
    assert len(network.get_submodule("blocks")) == 2  # type: ignore[arg-type]
    assert network.get_parameter("patch_embed.proj.weight").shape == (192, 1, 8, 8)
    assert network.get_parameter("pos_embed").shape == (1, 1 + 4 * 6, 192)  # a class token, 32/8 x 48/8 patches
    assert network.get_parameter("head.weight").shape == (7, 192)
    assert build("timm:resnet10t", shape=(1, 32, 32)).get_parameter("conv1.0.weight").shape[1] == 1  # no size of images asked for


def test_hugging_face_takes_images_classes_and_configuration() -> None:
    network = build("hf:vit", shape=(1, 8, 16), **VIT)
    assert type(network).__name__ == "ViTForImageClassification"
    assert network.get_parameter("vit.embeddings.position_embeddings").shape == (1, 1 + 2 * 4, 16)
    assert network.get_parameter("classifier.weight").shape == (7, 16)
    assert type(build("hf:resnet/image-classification", embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1])).__name__ == (
        "ResNetForImageClassification"
    )


@pytest.mark.parametrize(
    ("name", "keywords", "kind"),
    [
        ("bert", SMALL, "BertForSequenceClassification"),  # no images: the next of the usual tasks
        ("bert/token-classification", SMALL, "BertForTokenClassification"),
        ("distilbert", {"dim": 16, "hidden_dim": 32, "n_layers": 1, "n_heads": 2}, "DistilBertForSequenceClassification"),
        ("gpt2/causal-lm", {"hidden_size": 16, "n_layer": 1, "n_head": 2}, "GPT2LMHeadModel"),  # hidden_size: another name of n_embd
    ],
)
def test_the_task_chooses_the_class(name: str, keywords: dict[str, Any], kind: str) -> None:
    network = find_builder(f"hf:{name}")(num_classes=5, vocab_size=50, **keywords)
    assert type(network).__name__ == kind
    if "classification" in kind.lower():
        assert network.get_submodule("classifier").out_features == 5


def test_init_is_the_library_s_own_until_it_is_asked_for() -> None:
    assert NetworkSpec(name="timm:resnet10t").init == NetworkSpec(name="hf:vit").init == "own"
    assert NetworkSpec(name="timm:resnet10t").label == "timm-resnet10t-own"
    own, drawn = build("hf:vit", **VIT), build("hf:vit", init="kaiming_in", **VIT)
    weight = "classifier.weight"
    assert float(own.get_parameter(weight).detach().std()) == pytest.approx(0.02, rel=0.3)  # initializer_range of the configuration
    assert float(drawn.get_parameter(weight).detach().std()) == pytest.approx((2 / 16) ** 0.5, rel=0.3)


@pytest.mark.parametrize(
    ("name", "keywords", "message"),
    [
        ("timm:vit_tinny_patch16_224", {}, "did you mean 'timm:vit_tiny_patch16_224'?"),
        ("timm:hf-hub:timm/resnet18", {}, "'timm:hf-hub:timm/resnet18' is not known"),  # which timm would download
        ("timm:resnet10t", {"pretrained": True}, "network.keywords.pretrained: True is not allowed; allowed: none: nothing is downloaded"),
        ("timm:resnet10t", {"in_chans": 3}, "network.keywords.in_chans: 3 is not allowed; allowed: none: it is given by the data"),
        ("timm:vit_tiny_patch16_224", {"img_size": 9}, "network.keywords.img_size: 9 is not allowed"),
        ("timm:resnet10t", {"depht": 3}, "network.keywords.depht: 3 is not allowed; allowed: a keyword that timm:resnet10t takes ("),
        ("timm:vit_tiny_patch16_224.nope", {}, "Invalid pretrained tag (nope)"),
        ("hf:vitt", {}, "did you mean 'hf:vit'?"),
        ("hf:vit/image-clasification", {}, "did you mean 'hf:vit/image-classification'?"),
        ("hf:vit/sequence-classification", {}, "allowed: hf:vit/image-classification or hf:vit/masked-image-modeling"),
        ("hf:google/vit-base", {}, "'hf:google/vit-base' is not known"),
        ("hf:vit", {"hiden_size": 3}, "network.keywords.hiden_size: 'hiden_size' is not known; did you mean 'hidden_size'?"),
        ("hf:vit", {"image_size": 3}, "network.keywords.image_size: 3 is not allowed; allowed: none: it is given by the data"),
        ("hf:vit", {"hidden_size": "big"}, "hf:vit raised "),
        ("hf:bert", SMALL, "network: its forward pass raised "),  # of an image
    ],
)
def test_what_will_not_do_is_one_line(name: str, keywords: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        build(name, **keywords)
    assert message in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 2000


@pytest.mark.parametrize(
    ("name", "package", "extra"),
    [("timm:resnet10t", "timm", "timm"), ("hf:vit", "transformers", "hf"), ("torchvision:alexnet", "torchvision", "pipeline")],
)
def test_a_package_that_is_missing_names_its_extra(name: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        SpecError,
        match=rf"^network.name: '{name}' is not allowed; allowed: with the package {package}, pip install 'autosparse\[{extra}\]'",
    ):
        build(name)
