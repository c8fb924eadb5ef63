"""The manifests of many replicas: the store and the balancer fit the server and each other."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from service.settings import Settings
from tests.deploy.manifests import DEPLOY, KUBERNETES, kustomize, named
from tests.deploy.test_compose import SERVICES

STREAMS_END_SECONDS = 1.0
"""What `Server.stop` gives streams after the drain."""

WORKLOADS = (("Deployment", "ntm-balancer"), ("StatefulSet", "ntm-store"))


@pytest.fixture(scope="module")
def objects() -> list[dict[str, Any]]:
    """Every object of replicas that share a store, behind a balancer."""
    return kustomize(KUBERNETES / "replicas")


def settings_of(objects: list[dict[str, Any]]) -> Settings:
    """What the server is given."""
    (container,) = pod_of(objects, "Deployment", "ntm")["containers"]
    (source,) = container["envFrom"]
    data = named(objects, "ConfigMap", source["configMapRef"]["name"])["data"]
    return Settings.from_command_line([], data)


def pod_of(objects: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    """The spec of a workload's pods."""
    spec: dict[str, Any] = named(objects, kind, name)["spec"]["template"]["spec"]
    return spec


def selects(objects: list[dict[str, Any]], kind: str, name: str) -> dict[str, str]:
    """The labels that a workload's pods have."""
    labels: dict[str, str] = named(objects, kind, name)["spec"]["template"]["metadata"]["labels"]
    return labels


def test_replicas_lose_nothing_with_the_store(objects: list[dict[str, Any]]) -> None:
    """Replies are durable; the store is the service's, which leads to the store's pods."""
    settings = settings_of(objects)
    service = named(objects, "Service", "ntm-store")
    (port,) = service["spec"]["ports"]

    assert settings.store == f"redis://{service['metadata']['name']}:{port['port']}"
    assert settings.durability == "synchronous"
    assert service["spec"]["selector"].items() <= selects(objects, *WORKLOADS[1]).items()


def test_a_pod_has_time_to_drain_and_to_store(objects: list[dict[str, Any]]) -> None:
    """Before SIGTERM, waiting steps, what the store takes, and the end of streams."""
    pod = pod_of(objects, "Deployment", "ntm")
    (container,) = pod["containers"]
    before = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    drain = 2 * settings_of(objects).drain_seconds

    assert before + drain + STREAMS_END_SECONDS < pod["terminationGracePeriodSeconds"]


def test_the_balancers_configuration_is_the_tested_one(objects: list[dict[str, Any]]) -> None:
    """Kustomize takes no file of another folder, so that there are two; its name is a service's."""
    text = (DEPLOY / "balancers" / "envoy.yaml").read_text()
    (volume,) = pod_of(objects, *WORKLOADS[0])["volumes"]
    given = named(objects, "ConfigMap", volume["configMap"]["name"])["data"]["envoy.yaml"]
    (cluster,) = yaml.safe_load(given)["static_resources"]["clusters"]
    (group,) = cluster["load_assignment"]["endpoints"]
    (endpoint,) = group["lb_endpoints"]
    address = endpoint["endpoint"]["address"]["socket_address"]
    service = named(objects, "Service", address["address"])

    assert given == text
    assert service["spec"]["clusterIP"] == "None"  # its name stands for the pods, not for one
    assert [port["port"] for port in service["spec"]["ports"]] == [address["port_value"]]


def test_policies_let_through_what_is_needed(objects: list[dict[str, Any]]) -> None:
    """Replicas to the store, the balancer to replicas, and all that needs names to the DNS."""
    server = named(objects, "NetworkPolicy")["spec"]
    store = named(objects, "NetworkPolicy", "ntm-store")["spec"]
    balancer = named(objects, "NetworkPolicy", "ntm-balancer")["spec"]
    replica = selects(objects, "Deployment", "ntm")
    (to_store,) = [p for p in store["ingress"][0]["from"] if "namespaceSelector" not in p]

    assert to_store["podSelector"]["matchLabels"].items() <= replica.items()
    assert store["egress"] == []
    assert server["egress"][0]["to"] == [{"podSelector": store["podSelector"]}]
    assert selects(objects, *WORKLOADS[0])["ntm-client"] == "true"
    (to_replicas,) = balancer["egress"][0]["to"]
    assert to_replicas["podSelector"]["matchLabels"].items() <= replica.items()
    for policy in (server, balancer):
        assert {port["port"] for port in policy["egress"][1]["ports"]} == {53}


@pytest.mark.parametrize(("kind", "name"), WORKLOADS)
def test_they_may_do_as_little_as_possible(
    objects: list[dict[str, Any]], kind: str, name: str
) -> None:
    """No root, no privileges, no access to the cluster; the image is that of the compose file."""
    pod = pod_of(objects, kind, name)
    (container,) = pod["containers"]

    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["resources"]["limits"]["memory"]
    assert container["image"] in {service["image"] for service in SERVICES.values()}


def test_every_selector_finds_pods(objects: list[dict[str, Any]]) -> None:
    """A label that nobody has would leave a service, a policy or a budget without effect."""
    labels = [selects(objects, kind, name) for kind, name in (("Deployment", "ntm"), *WORKLOADS)]
    selectors = [
        o["spec"].get("podSelector") or o["spec"]["selector"]
        for o in objects
        if o["kind"] in {"Service", "NetworkPolicy", "PodDisruptionBudget"}
    ]

    assert len(selectors) == 9
    for selector in selectors:
        wanted = selector.get("matchLabels", selector)
        assert sum(wanted.items() <= found.items() for found in labels) == 1
