"""The KubeRay manifest is held against what it names: our version, the locked Ray, its options, our settings, the image."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from autosparse import __version__
from autosparse.tasks import settings

ROOT = Path(__file__).parents[3]
CONFIG_MAP, RAY_CLUSTER, FLOW_WORKER = yaml.safe_load_all((ROOT / "docker/kuberay-cluster.yaml").read_text())
GROUPS: list[dict[str, Any]] = [RAY_CLUSTER["spec"]["headGroupSpec"], *RAY_CLUSTER["spec"]["workerGroupSpecs"]]
RAY_PODS: list[dict[str, Any]] = [group["template"]["spec"] for group in GROUPS]
PODS = [*RAY_PODS, FLOW_WORKER["spec"]["template"]["spec"]]
CONTAINERS = [pod["containers"][0] for pod in PODS]


def test_it_has_the_locked_ray_and_our_version() -> None:
    assert (RAY_CLUSTER["apiVersion"], RAY_CLUSTER["kind"]) == ("ray.io/v1", "RayCluster")
    lock = (ROOT / "requirements.lock").read_text().splitlines()
    assert f"ray=={RAY_CLUSTER['spec']['rayVersion']}" in lock
    assert [one["image"].split("/")[-1] for one in CONTAINERS] == [
        f"autosparse-ray-worker:{__version__}",
        f"autosparse-ray-worker:{__version__}",
        f"autosparse-ray-worker:{__version__}-cuda",
        f"autosparse-flow-worker:{__version__}",
    ]


def test_images_are_targets_of_the_dockerfile_that_its_user_may_run() -> None:
    dockerfile = (ROOT / "docker/Dockerfile").read_text()
    (user,) = re.findall(r"(?m)^USER (\d+)$", dockerfile)
    assert {pod["securityContext"]["runAsUser"] for pod in PODS} == {int(user)}
    assert {one["securityContext"]["allowPrivilegeEscalation"] for one in CONTAINERS} == {False}
    images = {re.sub(".*/autosparse-(.*):.*", r"\1", one["image"]) for one in CONTAINERS}
    assert images == set(re.findall(r"(?m)^FROM base AS (\S+)$", dockerfile))


def test_ray_start_knows_the_parameters(helps: dict[str, str]) -> None:
    given = {(name, type(value)) for group in GROUPS for name, value in group["rayStartParams"].items()}
    assert given == {("num-cpus", str), ("object-store-memory", str), ("dashboard-host", str)}
    assert [name for name, _ in given if not re.search(rf"(?<![\w-])--{name}(?![\w-])", helps["ray start"])] == []


def test_the_head_offers_no_cpu() -> None:
    assert GROUPS[0]["rayStartParams"]["num-cpus"] == "0"
    assert not any("num-cpus" in group["rayStartParams"] for group in GROUPS[1:])


def test_the_flow_worker_joins_this_cluster() -> None:
    assert CONFIG_MAP["data"]["AUTOSPARSE_RAY_ADDRESS"] == f"{RAY_CLUSTER['metadata']['name']}-head-svc:6379"
    assert FLOW_WORKER["spec"]["selector"]["matchLabels"] == FLOW_WORKER["spec"]["template"]["metadata"]["labels"]


@pytest.mark.parametrize("one", CONTAINERS, ids=[one["image"].split("-", 1)[1] for one in CONTAINERS])
def test_containers_have_settings_secrets_and_token(one: dict[str, Any]) -> None:
    assert one["envFrom"] == [{"configMapRef": {"name": CONFIG_MAP["metadata"]["name"]}}, {"secretRef": {"name": "autosparse"}}]
    assert {"name": "RAY_AUTH_MODE", "value": "token"} in one["env"]
    if one is not CONTAINERS[-1]:  # KubeRay's init container gets `env`, but not `envFrom`
        assert "RAY_AUTH_TOKEN" in [variable["name"] for variable in one["env"]]


def test_settings_are_known_to_autosparse() -> None:
    known = set(re.findall(r'"((?:AUTOSPARSE|MLFLOW|PREFECT)_\w+)"', Path(settings.__file__).read_text()))
    given = {name for name in CONFIG_MAP["data"] if not name.startswith("AWS_")}
    assert given == {"AUTOSPARSE_STORAGE", "AUTOSPARSE_RAY_ADDRESS", "MLFLOW_TRACKING_URI", "PREFECT_API_URL"}
    assert given <= known


def test_no_secret_is_written_down() -> None:
    text = (ROOT / "docker/kuberay-cluster.yaml").read_text()
    values = re.findall(r"(?:SECRET\w*|ACCESS_KEY\w*|TOKEN)=(\S+)", text)
    assert set(values) <= {"...", '"$(ray'}
    assert len(values) == 3
