"""The manifests for KServe fit the server, and KServe's rules and schemas."""

from __future__ import annotations

import copy
import os
import subprocess
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from service import __version__
from service.settings import Settings, variable
from service.telemetry.metrics import Metrics
from tests.deploy.manifests import DEPLOY, kustomize, named, program

KSERVE = DEPLOY / "kserve"
STREAMS_END_SECONDS = 1.0
"""The time that `Server.stop` gives streams after the drain."""

SCHEMAS = os.environ.get("KSERVE_SCHEMAS")
"""A folder with the definitions of KServe's and Envoy Gateway's resources; docs/kserve.md."""

PLATFORMS = {"serving.kserve.io/v1alpha1", "serving.kserve.io/v1beta1"}
PLATFORMS |= {"gateway.envoyproxy.io/v1alpha1"}
"""APIs whose schemas kubernetes-validate lacks."""


@pytest.fixture(scope="module")
def runtime() -> dict[str, Any]:
    """Return the runtime, which is all that the cluster gets once."""
    (found,) = kustomize(KSERVE / "runtime")
    return found


@pytest.fixture(scope="module")
def objects() -> list[dict[str, Any]]:
    """Return every object of the service."""
    return kustomize(KSERVE / "service")


@pytest.fixture(scope="module")
def container(runtime: dict[str, Any]) -> dict[str, Any]:
    """Return the server's container."""
    (found,) = runtime["spec"]["containers"]
    return dict(found)


@pytest.fixture(scope="module")
def predictor(objects: list[dict[str, Any]]) -> dict[str, Any]:
    """Return how the service runs the model."""
    return dict(named(objects, "InferenceService")["spec"]["predictor"])


@pytest.fixture(scope="module")
def with_a_gpu(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Return every object of the service with the component for GPUs, as an operator would."""
    folder = tmp_path_factory.mktemp("kserve").resolve()
    here = os.path.relpath(KSERVE, folder)
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [f"{here}/service"],
        "components": [f"{here}/gpu"],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    return kustomize(folder)


@pytest.fixture(scope="module")
def settings(objects: list[dict[str, Any]], predictor: dict[str, Any]) -> dict[str, str]:
    """Return the variables of the service."""
    (source,) = predictor["model"]["envFrom"]
    return dict(named(objects, "ConfigMap", source["configMapRef"]["name"])["data"])


def test_the_service_selects_the_runtime(
    runtime: dict[str, Any], predictor: dict[str, Any]
) -> None:
    """By its name, a format that it supports and a protocol that it has."""
    model = predictor["model"]

    assert runtime["kind"] == "ClusterServingRuntime"
    assert "namespace" not in runtime["metadata"]
    assert model["runtime"] == runtime["metadata"]["name"]
    assert model["modelFormat"]["name"] in {
        each["name"] for each in runtime["spec"]["supportedModelFormats"]
    }
    assert model["protocolVersion"] in runtime["spec"]["protocolVersions"]


def test_the_only_port_is_routed_as_grpc_for_every_path(
    runtime: dict[str, Any], container: dict[str, Any]
) -> None:
    """KServe routes all paths to a port called h2c only if no other port is named."""
    (port,) = container["ports"]

    assert (port["name"], port["containerPort"]) == ("h2c", Settings().port)
    assert container["name"] == "kserve-container"
    monitoring = runtime["spec"]["annotations"]["prometheus.kserve.io/port"]
    assert monitoring == str(Settings().metrics_port)


def test_it_is_probed_by_grpc(container: dict[str, Any]) -> None:
    """KServe's own probe would only connect."""
    probes = [container[f"{when}Probe"]["grpc"] for when in ("startup", "readiness", "liveness")]

    assert probes == [{"port": Settings().port}] * 3


def test_routes_have_no_time_limit(
    objects: list[dict[str, Any]], predictor: dict[str, Any]
) -> None:
    """Neither KServe's routes nor Envoy Gateway cut a stream."""
    limits = named(objects, "BackendTrafficPolicy")["spec"]["timeout"]["http"]

    assert predictor["timeout"] == 0
    assert limits == dict.fromkeys(
        ("requestTimeout", "maxStreamDuration", "streamIdleTimeout"), "0s"
    )


def test_both_routes_of_the_service_are_hashed_by_session(objects: list[dict[str, Any]]) -> None:
    """KServe makes the routes NAME and NAME-predictor."""
    name = named(objects, "InferenceService")["metadata"]["name"]
    policy = named(objects, "BackendTrafficPolicy")["spec"]

    assert {each["name"] for each in policy["targetRefs"]} == {name, f"{name}-predictor"}
    assert policy["loadBalancer"]["consistentHash"]["headers"] == [{"name": "x-session-id"}]
    assert set(policy["retry"]["retryOn"]["triggers"]) == {"connect-failure", "refused-stream"}


def test_a_pod_has_time_to_drain_and_to_store(
    container: dict[str, Any], predictor: dict[str, Any], settings: dict[str, str]
) -> None:
    """The hook, the drain, the time for the store and the end of streams fit the grace period."""
    before = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    drain = 2 * Settings.from_command_line([], settings).drain_seconds

    assert before + drain + STREAMS_END_SECONDS < predictor["terminationGracePeriodSeconds"]


def test_every_variable_is_a_setting_and_every_value_is_allowed(
    container: dict[str, Any], settings: dict[str, str]
) -> None:
    """The runtime's and the service's together, with KServe's place for models."""
    variables = {each["name"]: each["value"] for each in container["env"]} | settings
    read = Settings.from_command_line([], variables)

    assert set(variables) <= {variable(setting) for setting in fields(Settings)}
    assert read.models_dir == Path("/mnt/models")
    assert (read.store, read.durability) == ("redis://ntm-store:6379", "synchronous")
    memory = int(container["resources"]["limits"]["memory"].removesuffix("Gi")) << 30
    assert read.max_state_bytes <= memory / 2


def test_the_pods_are_those_that_the_store_and_the_budget_select(
    runtime: dict[str, Any], objects: list[dict[str, Any]]
) -> None:
    """KServe puts the runtime's labels on the pods."""
    labels = runtime["spec"]["labels"]
    (rule,) = named(objects, "NetworkPolicy", "ntm-store")["spec"]["ingress"]
    (admitted,) = rule["from"]

    assert admitted["podSelector"]["matchLabels"] == labels
    budget = named(objects, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"]
    assert budget == labels


def test_keda_asks_for_a_metric_that_there_is(
    objects: list[dict[str, Any]], predictor: dict[str, Any]
) -> None:
    """The query is of the server's sessions in the service's namespace; it never scales to none."""
    (metric,) = predictor["autoScaling"]["metrics"]
    external = metric["external"]
    registry = CollectorRegistry()
    Metrics(registry)
    service = named(objects, "InferenceService")["metadata"]
    series, _, rest = external["metric"]["query"].removeprefix("sum(").partition("{")

    assert service["annotations"]["serving.kserve.io/autoscalerClass"] == "keda"
    assert service["annotations"]["serving.kserve.io/deploymentMode"] == "Standard"
    assert series in {each.name for each in registry.collect()}
    assert rest == f'namespace="{service["namespace"]}"}})'
    assert int(external["target"]["value"]) <= Settings().max_sessions / 2
    assert predictor["minReplicas"] >= 2


def test_a_pod_may_do_as_little_as_possible(
    container: dict[str, Any], predictor: dict[str, Any]
) -> None:
    """A pod has no root, no privileges, no writable file system and no access to the cluster."""
    assert predictor["automountServiceAccountToken"] is False
    assert predictor["securityContext"]["runAsNonRoot"] is True
    assert predictor["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "privileged": False,
        "runAsNonRoot": True,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_the_image_is_this_version(container: dict[str, Any]) -> None:
    """The tag of the image is the version of the server."""
    assert container["image"] == f"ntm-service:{__version__}"


def test_each_replica_can_have_a_gpu(
    with_a_gpu: list[dict[str, Any]], container: dict[str, Any], predictor: dict[str, Any]
) -> None:
    """It gets one, NVIDIA's runtime and the image for CUDA; what else differs is listed here."""
    other = named(with_a_gpu, "InferenceService")["spec"]["predictor"]
    model = other["model"]
    (source,) = model["envFrom"]
    data = named(with_a_gpu, "ConfigMap", source["configMapRef"]["name"])["data"]
    read = Settings.from_command_line([], data)
    memory = int(model["resources"]["limits"]["memory"].removesuffix("Gi")) << 30
    changed = {each for each in other if other[each] != predictor.get(each)}

    assert model["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert other["runtimeClassName"] == "nvidia"
    assert f"{container['image']}-cuda" == f"ntm-service:{model['runtimeVersion']}"
    assert read.device == "cuda"
    assert read.max_state_bytes <= memory / 2
    assert changed == {"deploymentStrategy", "model", "runtimeClassName", "tolerations"}
    assert other["deploymentStrategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}


def test_everything_else_is_valid(objects: list[dict[str, Any]], tmp_path: Path) -> None:
    """Kubernetes' own objects are valid by its schemas, and all are in the namespace."""
    known = [each for each in objects if each["apiVersion"] not in PLATFORMS]
    assert len(known) == len(objects) - 2 >= 6
    (tmp_path / "objects.yaml").write_text(yaml.safe_dump_all(known))
    command = [program("kubernetes-validate"), "-k", "1.34", "--strict", "objects.yaml"]
    checked = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert checked.returncode == 0, checked.stdout + checked.stderr
    spaces = {each["metadata"].get("namespace") for each in objects if each["kind"] != "Namespace"}
    assert spaces == {"ntm"}


def schema(kind: str) -> dict[str, Any]:
    """The published schema of a kind, which refuses fields that it does not know."""
    assert SCHEMAS is not None
    for path in Path(SCHEMAS).glob("*.yaml"):
        definition = yaml.safe_load(path.read_text())
        if definition["spec"]["names"]["kind"] == kind:
            (version,) = (each for each in definition["spec"]["versions"] if each["served"])
            found: dict[str, Any] = version["schema"]["openAPIV3Schema"]
            found["properties"]["metadata"] = {"x-kubernetes-preserve-unknown-fields": True}
            return dict(closed(found))
    pytest.fail(f"{SCHEMAS} has no definition of {kind}")


def closed(part: Any) -> Any:
    """The schema with no field but those that it names."""
    if isinstance(part, list):
        return [closed(each) for each in part]
    if not isinstance(part, dict):
        return part
    made = {key: closed(value) for key, value in part.items()}
    if isinstance(made.get("properties"), dict) and "type" in made:
        made.setdefault("additionalProperties", False)
    return made


@pytest.mark.skipif(SCHEMAS is None, reason="KSERVE_SCHEMAS names no folder; see docs/kserve.md")
def test_the_objects_are_valid_by_the_published_schemas(
    runtime: dict[str, Any], objects: list[dict[str, Any]], with_a_gpu: list[dict[str, Any]]
) -> None:
    """Each is valid and has no unknown field; with a wrong field it is not."""
    jsonschema = pytest.importorskip("jsonschema")  # comes with kubernetes-validate
    platforms = [each for each in objects if each["apiVersion"] in PLATFORMS]

    assert len(platforms) == 2
    for each in (runtime, *platforms, named(with_a_gpu, "InferenceService")):
        validator = jsonschema.Draft202012Validator(schema(each["kind"]))
        assert [error.message for error in validator.iter_errors(each)] == []
        wrong = copy.deepcopy(each)
        wrong["spec"]["timeOut"] = 1
        assert not validator.is_valid(wrong)
