"""What prefect.yaml names can be loaded, and its flow takes the parameters that it sets."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.flows import load_flow_from_entrypoint

from autosparse.flows.autosparse_pipeline import autosparse
from autosparse.flows.recipes import smoke

ROOT = Path(__file__).resolve().parents[2]
DEPLOYMENTS = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda one: one["name"])
def test_module_entrypoint_loads_the_flow(deployment: dict) -> None:
    flow = load_flow_from_entrypoint(deployment["entrypoint"])
    assert flow.name == "autosparse"
    assert set(deployment.get("parameters", {})) <= set(flow.parameters.properties)


def test_there_is_a_deployment_irp() -> None:
    assert "irp" in [deployment["name"] for deployment in DEPLOYMENTS]


def test_path_entrypoint_loads_the_same_flow() -> None:
    flow = load_flow_from_entrypoint(str(ROOT / "flows/autosparse_pipeline.py") + ":autosparse")
    assert flow.name == "autosparse"


def test_a_recipe_alone_stands_for_its_spec(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def open_run(*given: Any, **named: Any) -> None:
        asked.append((*given, named))
        raise InterruptedError

    monkeypatch.setattr("autosparse.flows.autosparse_pipeline.open_run", open_run)
    with pytest.raises(InterruptedError):
        autosparse.fn(recipe="smoke", name="first")
    assert asked == [(smoke(), "first", {"force": False, "recipe": "smoke"})]


def test_schema_of_the_flow_parameter_refuses_unknown_keys_and_bad_values() -> None:
    spec = autosparse.parameters.model_dump()["properties"]["spec"]["anyOf"][0]["properties"]
    irp, fanout = spec["irp"]["properties"], spec["fanout"]["properties"]
    assert all(part["additionalProperties"] is False for part in (spec["data"], spec["irp"], irp["train"], spec["fanout"]))
    assert {key: irp["rounds"][key] for key in ("minimum", "maximum", "type")} == {"minimum": 1, "maximum": 200, "type": "integer"}
    names, levels = fanout["methods"]["items"]["anyOf"]
    assert {"random", "snip", "scorer", "autos"} <= set(names["enum"])
    assert re.search(levels["pattern"], "grda(c=0.02,mu=0.8)") and not re.search(levels["pattern"], "snipp")
    assert re.search(levels["pattern"], "my_pkg.mine:METHOD(c=0.02)") and re.search(levels["pattern"], "my_pkg.mine:taylor")
    names, others = irp["networks"]["items"]["properties"]["name"]["anyOf"]
    assert "resnet8" in names["enum"] and not re.search(others["pattern"], "resnt8") and re.search(others["pattern"], "torchvision:alexnet")
    (path,) = (part for part in spec["data"]["properties"]["path"]["anyOf"] if part["type"] == "string")
    assert all(re.search(path["pattern"], place) for place in ("/data/cifar10", "s3://bucket/me@home/x", "~/a"))
    assert not re.search(path["pattern"], "s3://KEY:SECRET@bucket/x")
