"""The KubeRay manifests are held against what they name: version, Ray, options, settings, image, fields of KubeRay."""

import copy
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from autosparse import __version__
from autosparse.tasks import settings
from tests.unit.docker.kuberay_schema import RESOURCES

ROOT = Path(__file__).parents[3]
CONFIG_MAP, RAY_CLUSTER, FLOW_WORKER = yaml.safe_load_all((ROOT / "docker/kuberay-cluster.yaml").read_text())
JOB_CONFIG_MAP, RAY_JOB = yaml.safe_load_all((ROOT / "docker/kuberay-job.yaml").read_text())
CLUSTERS: list[dict[str, Any]] = [RAY_CLUSTER["spec"], RAY_JOB["spec"]["rayClusterSpec"]]
GROUPS: list[dict[str, Any]] = [group for one in CLUSTERS for group in (one["headGroupSpec"], *one["workerGroupSpecs"])]
FLOW_WORKER_POD, SUBMITTER = FLOW_WORKER["spec"]["template"]["spec"], RAY_JOB["spec"]["submitterPodTemplate"]["spec"]
PODS: list[dict[str, Any]] = [*(group["template"]["spec"] for group in GROUPS), FLOW_WORKER_POD, SUBMITTER]
CONTAINERS = [pod["containers"][0] for pod in PODS]


def test_it_has_the_locked_ray_and_our_version() -> None:
    lock = (ROOT / "requirements.lock").read_text().splitlines()
    assert [f"ray=={one['rayVersion']}" in lock for one in CLUSTERS] == [True, True]
    assert [one["image"].split("/")[-1] for one in CONTAINERS] == [
        f"autosparse-ray-worker:{__version__}",
        f"autosparse-ray-worker:{__version__}",
        f"autosparse-ray-worker:{__version__}-cuda",
        f"autosparse-ray-worker:{__version__}",
        f"autosparse-ray-worker:{__version__}-cuda",
        f"autosparse-flow-worker:{__version__}",
        f"autosparse-ray-worker:{__version__}",
    ]


@pytest.mark.parametrize("manifest", [RAY_CLUSTER, RAY_JOB], ids=["cluster", "job"])
def test_kuberay_has_these_fields(manifest: dict[str, Any]) -> None:
    jsonschema.validate(manifest, RESOURCES[manifest["kind"]])


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("spec.entryPoint", "autosparse run"),
        ("spec.backoffLimit", "2"),
        ("spec.submissionMode", "k8sJobMode"),
        ("spec.rayClusterSpec.workerGroupSpecs.0.maxReplica", 2),
        ("spec.rayClusterSpec.headGroupSpec.rayStartParams.num-cpus", 0),
        ("spec.rayClusterSpec.headGroupSpec.template.spec.containers.0.resources.limits.cpu", 2),
        ("spec.submitterPodTemplate.spec.containers.0.envfrom", []),
    ],
)
def test_a_wrong_field_is_found(path: str, value: object) -> None:
    spoiled = copy.deepcopy(RAY_JOB)
    *parents, name = path.split(".")
    inner: Any = spoiled
    for parent in parents:
        inner = inner[int(parent) if parent.isdigit() else parent]
    inner[name] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(spoiled, RESOURCES["RayJob"])


def test_the_operator_takes_them() -> None:
    """What KubeRay checks beside its schema: lengths of names, bounds of replicas, a time to live only where something is shut down."""
    assert all(len(one["metadata"]["name"]) <= 47 for one in (RAY_CLUSTER, RAY_JOB))
    for group in [group for group in GROUPS if "groupName" in group]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    spec = RAY_JOB["spec"]
    assert spec["shutdownAfterJobFinishes"] and spec["ttlSecondsAfterFinished"] > 0
    assert SUBMITTER["restartPolicy"] == "Never"


def test_the_job_is_a_run_that_a_second_try_takes_up(typed: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    program, command, *options = shlex.split(RAY_JOB["spec"]["entrypoint"])
    assert (program, command) == ("autosparse", "run")
    assert "--name" in options and RAY_JOB["spec"]["backoffLimit"] > 0
    checked = typed("validate", *options, AUTOSPARSE_RAY_ADDRESS=JOB_CONFIG_MAP["data"]["AUTOSPARSE_RAY_ADDRESS"])
    assert checked.returncode == 0 and checked.stdout.startswith("first: spec "), checked
    assert JOB_CONFIG_MAP["data"]["AUTOSPARSE_RAY_ADDRESS"] == "auto"


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
    for one in CLUSTERS:
        assert one["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
        assert not any("num-cpus" in group["rayStartParams"] for group in one["workerGroupSpecs"])


def test_the_flow_worker_joins_this_cluster() -> None:
    assert CONFIG_MAP["data"]["AUTOSPARSE_RAY_ADDRESS"] == f"{RAY_CLUSTER['metadata']['name']}-head-svc:6379"
    assert FLOW_WORKER["spec"]["selector"]["matchLabels"] == FLOW_WORKER["spec"]["template"]["metadata"]["labels"]


@pytest.mark.parametrize("one", CONTAINERS, ids=[f"{index} {one['name']}" for index, one in enumerate(CONTAINERS)])
def test_containers_have_settings_secrets_and_token(one: dict[str, Any]) -> None:
    assert {"name": "RAY_AUTH_MODE", "value": "token"} in one["env"]
    if one["name"] == "submit":  # tells the cluster what to run, and no more
        assert "envFrom" not in one
    else:
        config, secret = one["envFrom"]
        assert config["configMapRef"]["name"] in (CONFIG_MAP["metadata"]["name"], JOB_CONFIG_MAP["metadata"]["name"])
        assert secret == {"secretRef": {"name": "autosparse"}}
    if one["name"] != "flow-worker":  # KubeRay's init container gets `env`, but not `envFrom`
        assert "RAY_AUTH_TOKEN" in [variable["name"] for variable in one["env"]]


def test_settings_are_known_to_autosparse() -> None:
    source = Path(settings.__file__).read_text() + (ROOT / "tasks/home.py").read_text()
    known = set(re.findall(r'"((?:AUTOSPARSE|MLFLOW|PREFECT)_\w+)"', source))
    given = {name for name in {**CONFIG_MAP["data"], **JOB_CONFIG_MAP["data"]} if not name.startswith("AWS_")}
    assert given == {"AUTOSPARSE_STORAGE", "AUTOSPARSE_RAY_ADDRESS", "MLFLOW_TRACKING_URI", "PREFECT_API_URL", "AUTOSPARSE_HOME"}
    assert given <= known


def test_no_secret_is_written_down() -> None:
    text = "".join((ROOT / "docker" / name).read_text() for name in ("kuberay-cluster.yaml", "kuberay-job.yaml"))
    values = re.findall(r"(?:SECRET\w*|ACCESS_KEY\w*|TOKEN)=(\S+)", text)
    assert set(values) <= {"...", '"$(ray'}
    assert len(values) == 3
