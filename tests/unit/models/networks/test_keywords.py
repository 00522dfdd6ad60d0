"""Keywords of a factory as a field of the spec: which reach whom, what they do to names, and what is refused."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter
from torch import nn

from autosparse.flows.recipes import smoke
from autosparse.models.errors import SpecError
from autosparse.models.networks.build import build_network
from autosparse.models.specs.experiment import ExperimentSpec
from autosparse.models.specs.fields import fingerprint, from_plain, override, to_plain
from autosparse.models.specs.json_object import JsonObject
from autosparse.models.specs.run_specs import NetworkSpec


def network(name: str, **keywords: Any) -> NetworkSpec:
    return from_plain(NetworkSpec, {"name": name, "keywords": keywords})


def build(spec: NetworkSpec) -> nn.Module:
    return build_network(spec, image_shape=(1, 4, 4), num_classes=3, seed=0)


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of a user whose factories take keywords of their own."""
    (tmp_path / "nets_with_keywords.py").write_text(
        """
from torch import nn


def deep(num_classes, depth, widths=(16,), width=8):
    layers = [layer for _ in range(depth) for layer in (nn.Linear(16, 16), nn.ReLU())]
    return nn.Sequential(nn.Flatten(), *layers, nn.Linear(16, num_classes))


def passes_on(**keywords):
    return inner(**keywords)


def inner(num_classes, depth=1):
    return deep(num_classes, depth)
"""
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "nets_with_keywords", raising=False)
    return "nets_with_keywords"


def linears(module: nn.Module) -> int:
    return sum(isinstance(one, nn.Linear) for one in module.modules())


def test_keywords_reach_factories_registered_networks_and_torchvision(mine: str) -> None:
    assert linears(build(network(f"{mine}:deep", depth=3))) == 4
    assert linears(build(network(f"{mine}:passes_on", depth=2))) == 3
    assert len(build(network("resnet8", blocks=2)).get_submodule("stages.0")) == 2  # type: ignore[arg-type]
    images = {"image_shape": (3, 32, 32), "num_classes": 3, "seed": 0}
    slim = build_network(network("torchvision:mobilenet_v2", width_mult=0.5), **images)  # type: ignore[arg-type]
    assert slim.get_parameter("classifier.1.weight").shape == (3, 1280)
    assert slim.get_parameter("features.0.0.weight").shape[0] == 16  # half of 32


@pytest.mark.parametrize(
    ("factory", "keywords", "message"),
    [
        ("deep", {"dpth": 3}, "network.keywords.dpth: 'dpth' is not known; did you mean 'depth'?; known: depth, widths"),
        ("deep", {"depth": 1, "num_classes": 3}, "network.keywords.num_classes: 3 is not allowed; allowed: none: it is given by the data"),
        ("deep", {"depth": 1, "image_shape": 3}, "network.keywords.image_shape: 3 is not allowed; allowed: none: it is given by the data"),
        ("deep", {"depth": 1, "width": 3}, "network.keywords.width: 3 is not allowed; allowed: network.width"),
        ("deep", {}, "missing a required argument: 'depth'), what else it needs in network.keywords"),
        ("deep", {"depth": "a"}, "deep raised TypeError: 'str' object cannot be interpreted as an integer (nets_with_keywords.py:6: "),
        ("passes_on", {"qqq": 1}, "network.keywords.qqq: 1 is not allowed; allowed: a keyword that "),
    ],
)
def test_what_a_factory_does_not_take_is_one_line(mine: str, factory: str, keywords: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        build(network(f"{mine}:{factory}", **keywords))
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "keywords", "message"),
    [
        ("resnet8", {"bloks": 2}, "network.keywords.bloks: 'bloks' is not known; did you mean 'blocks'?; known: blocks"),
        ("resnet8", {"blocks": "a"}, "resnet8 raised TypeError"),
        ("lenet300-100", {"depth": 2}, "network.keywords.depth: 'depth' is not known; known: none"),
        ("torchvision:resnet18", {"qqq": 2}, "network.keywords.qqq: 2 is not allowed; allowed: a keyword that torchvision:resnet18 takes"),
        ("torchvision:resnet18", {"weights": "DEFAULT"}, "network.keywords.weights: 'DEFAULT' is not allowed; allowed: none: nothing is"),
    ],
)
def test_what_a_known_network_does_not_take_is_one_line(name: str, keywords: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        build(network(name, **keywords))
    assert message in str(caught.value) and "\n" not in str(caught.value)


# Names


def test_labels_differ_where_keywords_do() -> None:
    assert network("mine:net").label == "mine-net-own"
    assert network("mine:net", depth=3).label == network("mine:net", **{"depth": 3}).label == "mine-net-own-depth3"
    assert network("mine:net", num_heads=2, depth=3).label == "mine-net-own-depth3-num_heads2"
    sets: list[dict[str, Any]] = [{}, {"a": 1}, {"a": 1.0}, {"a": True}, {"a": "1"}, {"a": -1}, {"a1": 1}, {"a": 11}, {"a": [1]}]
    sets += [{"a": {"b": 1}}, {"a": None}, {"A": 1}, {"a": 1, "b": 1}, {"a": 1, "b_1": 1}, {"long" * 20: 1}, {"long" * 20: 2}]
    labels = [network("mine:net", **one).label for one in sets]
    assert len(set(labels)) == len(labels) and max(map(len, labels)) < 80


def test_no_keywords_leave_no_trace_in_a_fingerprint_and_their_order_none() -> None:
    plain = to_plain(smoke())
    assert fingerprint(override(smoke(), {"irp.networks.0.keywords": {}})) == fingerprint(smoke())
    del plain["irp"]["networks"][0]["keywords"]  # as runs were stored before
    assert from_plain(ExperimentSpec, plain) == smoke()
    one, other = network("mine:net", a=1, b=[2]), network("mine:net", b=[2], a=1)
    assert one == other and hash(one) == hash(other) and fingerprint(one) == fingerprint(other)
    assert len({fingerprint(network("mine:net", **some)) for some in ({}, {"a": 1}, {"a": 1.0}, {"a": "1"})}) == 4


def test_a_spec_with_keywords_survives_json_and_pydantic() -> None:
    spec = override(smoke(), {"irp.networks.0.keywords": {"depth": 3, "widths": [4, {"x": None}]}})
    assert from_plain(ExperimentSpec, json.loads(json.dumps(to_plain(spec)))) == spec
    adapter = TypeAdapter(ExperimentSpec)
    assert adapter.validate_python(to_plain(spec)) == spec
    assert json.loads(adapter.dump_json(spec)) == to_plain(spec)
    described = adapter.json_schema()["$defs"]["NetworkSpec"]["properties"]["keywords"]
    assert (described["type"], described["default"]) == ("object", {})


def test_an_override_names_one_keyword_or_all() -> None:
    one = override(smoke(), {"irp.networks.0.keywords.depth": 3, "fanout.targets.0.network.keywords": {"a": [1, {"x": 2}]}})
    assert dict(one.irp.networks[0].keywords) == {"depth": 3}
    assert dict(override(one, {"fanout.targets.0.network.keywords.a.1.x": 7}).fanout.targets[0].network.keywords) == {"a": [1, {"x": 7}]}
    several = override(
        smoke(), {"irp.networks": [{"name": "resnet8"}, {"name": "resnet20", "keywords": {}}], "irp.networks.1.keywords.depth": 3}
    )
    assert [dict(network.keywords) for network in several.irp.networks] == [{}, {"depth": 3}]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"irp.networks.0.keywords": 3}, "irp.networks.0.keywords: 3 is not allowed; allowed: a JSON object"),
        ({"irp.networks.0.keywords": [1]}, "irp.networks.0.keywords: [1] is not allowed; allowed: a JSON object"),
        ({"irp.networks.0.keywords": {"a": float("nan")}}, "irp.networks.0.keywords: {'a': nan} is not allowed; allowed: a JSON object"),
        ({"irp.networks.0.keywords.a.b": 3}, "irp.networks.0.keywords.a.b: 'a' is not known"),
        ({"irp.networks.0.keyword.a": 3}, "irp.networks.0.keyword.a: 'keyword' is not known; did you mean 'keywords'?"),
        ({"irp.networks.1.keywords.a": 3}, "irp.networks.1.keywords.a: '1' is not known"),
        ({"irp.rewind_steps": 3}, "irp.rewind_steps: 'rewind_steps' is not known; did you mean 'rewind_step'?"),
    ],
)
def test_keywords_that_are_none_are_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        override(smoke(), changes)
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("values", [{1: 2}, {"a": print}, {"a": {1, 2}}, [1], "text"])
def test_an_object_is_json(values: Any) -> None:
    with pytest.raises(SpecError, match="^here: .* is not allowed; allowed: a JSON object"):
        JsonObject.of("here", values)


def test_an_object_cannot_be_changed() -> None:
    made = JsonObject({"a": [1]})
    made["a"].append(2)
    assert made["a"] == [1] and made != {"a": [1]} and repr(made) == '{"a": [1]}'
    with pytest.raises(TypeError):
        made["b"] = 1  # type: ignore[index]
