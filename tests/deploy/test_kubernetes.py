"""The manifests are valid and fit the server."""

from __future__ import annotations

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
from tests.deploy.manifests import KUBERNETES, kustomize, named, program

STREAMS_END_SECONDS = 1.0
"""The time that `Server.stop` gives streams after the drain."""

OPERATOR = "monitoring.coreos.com/v1"
"""The API of the Prometheus Operator, whose schemas kubernetes-validate lacks."""


@pytest.fixture(scope="module")
def objects() -> list[dict[str, Any]]:
    """Return every object of the base and all components."""
    return kustomize(KUBERNETES / "example")


@pytest.fixture(scope="module")
def pod(objects: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the spec of the server's pods."""
    spec: dict[str, Any] = named(objects, "Deployment")["spec"]["template"]["spec"]
    return spec


@pytest.fixture(scope="module")
def container(pod: dict[str, Any]) -> dict[str, Any]:
    """Return the server's container."""
    containers: list[dict[str, Any]] = pod["containers"]
    (container,) = containers
    return container


@pytest.fixture(scope="module")
def settings(objects: list[dict[str, Any]], container: dict[str, Any]) -> dict[str, str]:
    """Return the variables of the server."""
    (source,) = container["envFrom"]
    data: dict[str, str] = named(objects, "ConfigMap", source["configMapRef"]["name"])["data"]
    return data


@pytest.mark.parametrize("folder", ["base", "example", "replicas"])
def test_every_object_is_valid(folder: str, tmp_path: Path) -> None:
    """Each object is valid by the schemas of Kubernetes and has no unknown field."""
    built = [o for o in kustomize(KUBERNETES / folder) if o["apiVersion"] != OPERATOR]
    assert len(built) >= 7
    (tmp_path / "objects.yaml").write_text(yaml.safe_dump_all(built))
    command = [program("kubernetes-validate"), "-k", "1.34", "--strict", "objects.yaml"]
    checked = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("folder", ["base", "example", "replicas"])
def test_every_object_is_in_the_namespace(folder: str) -> None:
    """Each object has the namespace of the kustomization."""
    built = [o for o in kustomize(KUBERNETES / folder) if o["kind"] != "Namespace"]

    assert {o["metadata"].get("namespace") for o in built} == {"ntm"}


def test_the_service_monitor_finds_the_service(objects: list[dict[str, Any]]) -> None:
    """The monitor selects the service by its labels and scrapes a port that the service names."""
    monitor = named(objects, "ServiceMonitor")
    service = named(objects, "Service")
    (endpoint,) = monitor["spec"]["endpoints"]

    assert monitor["apiVersion"] == OPERATOR
    assert service["metadata"]["name"] == "ntm"  # the job that the alerts ask for
    assert set(monitor["spec"]) == {"selector", "endpoints"}
    assert (
        monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    )
    assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
    assert set(endpoint) == {"port", "interval", "authorization"}
    assert endpoint["authorization"]["credentials"]["name"] == "ntm-metrics-token"


def test_only_one_service_is_scraped(objects: list[dict[str, Any]]) -> None:
    """Only one of the selected services names the scraped port."""
    port = named(objects, "ServiceMonitor")["spec"]["endpoints"][0]["port"]
    services = [o for o in objects if o["kind"] == "Service"]
    scraped = [s for s in services if port in {p["name"] for p in s["spec"]["ports"]}]

    assert [s["metadata"]["name"] for s in scraped] == ["ntm"]


def test_every_variable_is_a_setting_and_every_value_is_allowed(settings: dict[str, str]) -> None:
    """Each variable is a setting, and the server accepts its value."""
    assert set(settings) <= {variable(setting) for setting in fields(Settings)}
    assert Settings.from_command_line([], settings) != Settings()


def test_the_ports_are_those_that_the_image_listens_on(
    objects: list[dict[str, Any]], container: dict[str, Any]
) -> None:
    """The container names the ports of gRPC and monitoring, and references use these names."""
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    targets = {
        port["targetPort"]
        for service in objects
        if service["kind"] == "Service"
        for port in service["spec"]["ports"]
    }
    allowed = {
        port["port"]
        for rule in named(objects, "NetworkPolicy")["spec"]["ingress"]
        for port in rule["ports"]
    }

    assert ports == {"grpc": Settings().port, "monitoring": Settings().metrics_port}
    assert targets == allowed == set(ports)


def test_a_pod_has_time_to_drain(
    pod: dict[str, Any], container: dict[str, Any], settings: dict[str, str]
) -> None:
    """The hook before SIGTERM, the drain and the end of streams fit into the grace period."""
    before = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    drain = Settings.from_command_line([], settings).drain_seconds

    assert before + drain + STREAMS_END_SECONDS < pod["terminationGracePeriodSeconds"]


def test_the_state_fits_into_the_memory(
    container: dict[str, Any], settings: dict[str, str]
) -> None:
    """The state limit is at most half of the memory."""
    limit = int(container["resources"]["limits"]["memory"].removesuffix("Gi")) << 30

    assert Settings.from_command_line([], settings).max_state_bytes <= limit / 2


def test_a_pod_may_do_as_little_as_possible(pod: dict[str, Any], container: dict[str, Any]) -> None:
    """A pod has no root, no privileges, no writable file system and no access to the cluster."""
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def probes(container: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    """Return the probes at the start, for readiness and for liveness, if all have this kind."""
    return [container[f"{when}Probe"][kind] for when in ("startup", "readiness", "liveness")]


def test_it_is_probed_by_grpc() -> None:
    """The probes at the start, for readiness and for liveness are gRPC probes."""
    deployment = named(kustomize(KUBERNETES / "base"), "Deployment")
    (plain,) = deployment["spec"]["template"]["spec"]["containers"]

    assert probes(plain, "grpc") == [{"port": Settings().port}] * 3


def test_with_tls_it_is_probed_by_http(container: dict[str, Any]) -> None:
    """With TLS, all probes are HTTP probes of the monitoring port, without certificate or token."""
    asked = probes(container, "httpGet")

    assert [probe["path"] for probe in asked] == ["/readyz", "/readyz", "/healthz"]
    assert {probe["port"] for probe in asked} == {"monitoring"}
    assert [
        name for name in container if name.endswith("Probe") and "grpc" in container[name]
    ] == []


def test_every_file_of_the_settings_comes_from_a_secret(
    pod: dict[str, Any], container: dict[str, Any], settings: dict[str, str]
) -> None:
    """Each secret is mounted where its setting expects it, readable by the server's group only."""
    files = [value for value in settings.values() if value.startswith("/")]
    mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume["secret"] for volume in pod["volumes"]}

    assert len(files) == 5
    assert {Path(file).parent for file in files} == {Path(m["mountPath"]) for m in mounts.values()}
    assert set(mounts) == set(volumes)
    assert all(mount["readOnly"] for mount in mounts.values())
    assert {secret["defaultMode"] for secret in volumes.values()} == {0o440}
    assert pod["securityContext"]["fsGroup"] == pod["securityContext"]["runAsGroup"] == 10001


def test_everything_selects_the_servers_pods(objects: list[dict[str, Any]]) -> None:
    """Each selector of a policy, a budget or a service selects the server's pods."""
    template = named(objects, "Deployment")["spec"]["template"]
    selectors = [
        named(objects, "Deployment")["spec"]["selector"]["matchLabels"],
        named(objects, "Service")["spec"]["selector"],
        named(objects, "Service", "ntm-replicas")["spec"]["selector"],
        named(objects, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        named(objects, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        *(
            constraint["labelSelector"]["matchLabels"]
            for constraint in template["spec"]["topologySpreadConstraints"]
        ),
    ]

    for selector in selectors:
        assert selector
        assert selector.items() <= template["metadata"]["labels"].items()


def test_the_autoscaler_asks_for_a_metric_that_there_is(objects: list[dict[str, Any]]) -> None:
    """The adapter derives the metric from the server's series; the target is below the limit."""
    pods, _ = named(objects, "HorizontalPodAutoscaler")["spec"]["metrics"]
    values = yaml.safe_load((KUBERNETES / "autoscaling/prometheus-adapter.yaml").read_text())
    (rule,) = values["rules"]["custom"]
    registry = CollectorRegistry()
    Metrics(registry)
    series = rule["seriesQuery"].partition("{")[0]

    assert series in {metric.name for metric in registry.collect()}
    assert pods["pods"]["metric"]["name"] == rule["name"]["as"]
    assert int(pods["pods"]["target"]["averageValue"]) <= Settings().max_sessions / 2


def test_the_autoscaler_alone_says_how_many(objects: list[dict[str, Any]]) -> None:
    """The deployment has no number of replicas with an autoscaler, and at least two without."""
    (base,) = (o for o in kustomize(KUBERNETES / "base") if o["kind"] == "Deployment")

    assert "replicas" not in named(objects, "Deployment")["spec"]
    assert named(objects, "HorizontalPodAutoscaler")["spec"]["minReplicas"] >= 2
    assert base["spec"]["replicas"] >= 2


def test_the_image_is_this_version(container: dict[str, Any]) -> None:
    """The tag of the image is the version of the server."""
    assert container["image"] == f"ntm-service:{__version__}"
