"""KubeRay's two resources and the parts of a pod that our manifests use, as JSON schemas.

Written from the fields of KubeRay's API ray.io/v1 (RayClusterSpec, RayJobSpec) and of Kubernetes' core/v1: names, types, what is required,
which values there are. A field that stands in no list here is refused, as `kubectl apply` refuses it. Longer lists may be right: then
they belong here.
"""

from typing import Any

Schema = dict[str, Any]
TEXT: Schema = {"type": "string", "minLength": 1}
FLAG: Schema = {"type": "boolean"}
COUNT: Schema = {"type": "integer", "minimum": 0}
TEXTS: Schema = {"type": "object", "additionalProperties": {"type": "string"}}
NAME: Schema = {"type": "string", "pattern": "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"}
QUANTITY: Schema = {"type": "string", "pattern": r"^\d+(\.\d+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$"}


def record(required: str, **fields: Schema) -> Schema:
    """An object with these fields and no others."""
    return {"type": "object", "properties": fields, "required": required.split(), "additionalProperties": False}


def several(one: Schema) -> Schema:
    """A list of them, not empty."""
    return {"type": "array", "items": one, "minItems": 1}


SECRET_KEY = record("name key", name=NAME, key=TEXT)
VARIABLE = {
    "oneOf": [
        record("name value", name=TEXT, value={"type": "string"}),
        record("name valueFrom", name=TEXT, valueFrom=record("secretKeyRef", secretKeyRef=SECRET_KEY)),
    ]
}
SOURCE = {
    "oneOf": [
        record("configMapRef", configMapRef=record("name", name=NAME)),
        record("secretRef", secretRef=record("name", name=NAME)),
    ]
}
AMOUNTS = {"type": "object", "additionalProperties": QUANTITY}
CONTAINER = record(
    "name image",
    name=NAME,
    image=TEXT,
    command=several(TEXT),
    args=several(TEXT),
    env=several(VARIABLE),
    envFrom=several(SOURCE),
    ports=several(record("containerPort", name=NAME, containerPort={"type": "integer", "minimum": 1, "maximum": 65535})),
    resources=record("", requests=AMOUNTS, limits=AMOUNTS),
    securityContext=record("", allowPrivilegeEscalation=FLAG, capabilities=record("", drop=several(TEXT), add=several(TEXT))),
    volumeMounts=several(record("name mountPath", name=NAME, mountPath=TEXT)),
)
POD = record(
    "containers",
    containers=several(CONTAINER),
    restartPolicy={"enum": ["Always", "OnFailure", "Never"]},
    enableServiceLinks=FLAG,
    serviceAccountName=NAME,
    securityContext=record(
        "",
        runAsNonRoot=FLAG,
        runAsUser=COUNT,
        runAsGroup=COUNT,
        fsGroup=COUNT,
        seccompProfile=record("type", type={"enum": ["RuntimeDefault", "Unconfined", "Localhost"]}),
    ),
    tolerations=several(
        record(
            "",
            key=TEXT,
            operator={"enum": ["Exists", "Equal"]},
            value=TEXT,
            effect={"enum": ["NoSchedule", "PreferNoSchedule", "NoExecute"]},
        )
    ),
    nodeSelector=TEXTS,
    volumes=several({"type": "object", "required": ["name"]}),
)
TEMPLATE = record("spec", metadata=record("", labels=TEXTS, annotations=TEXTS), spec=POD)
HEAD = record(
    "template",
    rayStartParams=TEXTS,
    template=TEMPLATE,
    serviceType={"enum": ["ClusterIP", "NodePort", "LoadBalancer"]},
    enableIngress=FLAG,
)
WORKERS = record(
    "groupName template",
    groupName=TEXT,
    replicas=COUNT,
    minReplicas=COUNT,
    maxReplicas=COUNT,
    numOfHosts=COUNT,
    idleTimeoutSeconds=COUNT,
    suspend=FLAG,
    rayStartParams=TEXTS,
    template=TEMPLATE,
)
CLUSTER = record(
    "headGroupSpec",
    rayVersion=TEXT,
    enableInTreeAutoscaling=FLAG,
    autoscalerOptions=record(
        "",
        idleTimeoutSeconds=COUNT,
        upscalingMode={"enum": ["Default", "Aggressive", "Conservative"]},
        image=TEXT,
        env=several(VARIABLE),
        envFrom=several(SOURCE),
        resources=record("", requests=AMOUNTS, limits=AMOUNTS),
        version={"enum": ["v1", "v2"]},
    ),
    headServiceAnnotations=TEXTS,
    suspend=FLAG,
    headGroupSpec=HEAD,
    workerGroupSpecs=several(WORKERS),
)
JOB = record(
    "",
    entrypoint=TEXT,
    entrypointNumCpus={"type": "number", "minimum": 0},
    entrypointNumGpus={"type": "number", "minimum": 0},
    entrypointResources=TEXT,
    submissionMode={"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]},
    backoffLimit=COUNT,
    activeDeadlineSeconds={"type": "integer", "minimum": 1},
    shutdownAfterJobFinishes=FLAG,
    ttlSecondsAfterFinished=COUNT,
    suspend=FLAG,
    jobId=TEXT,
    metadata=TEXTS,
    runtimeEnvYAML=TEXT,
    clusterSelector=TEXTS,
    submitterConfig=record("", backoffLimit=COUNT),
    submitterPodTemplate=TEMPLATE,
    managedBy={"enum": ["ray.io/kuberay-operator", "kueue.x-k8s.io/multikueue"]},
    rayClusterSpec=CLUSTER,
)
RESOURCES = {
    kind: record(
        "apiVersion kind metadata spec",
        apiVersion={"const": "ray.io/v1"},
        kind={"const": kind},
        metadata=record("name", name=NAME, namespace=NAME, labels=TEXTS, annotations=TEXTS),
        spec=spec,
    )
    for kind, spec in {"RayCluster": CLUSTER, "RayJob": JOB}.items()
}
