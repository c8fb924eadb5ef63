"""The manifests of many replicas: store and balancer fit the server and each other."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from service.rpc.options import PING_SECONDS
from service.settings import Settings
from tests.deploy.manifests import DEPLOY, KUBERNETES, addresses, kustomize, named
from tests.deploy.test_compose import SERVICES

STREAMS_END_SECONDS = 1.0
"""The time that `Server.stop` gives streams after the drain."""

REPLICAS = ("StatefulSet", "ntm")
WORKLOADS = (("Deployment", "ntm-balancer"), ("StatefulSet", "ntm-store"))


@pytest.fixture(scope="module")
def objects() -> list[dict[str, Any]]:
    """Return every object of replicas that share a store, behind a balancer."""
    return kustomize(KUBERNETES / "replicas")


def settings_of(objects: list[dict[str, Any]]) -> Settings:
    """Return the settings of the server."""
    (container,) = pod_of(objects, *REPLICAS)["containers"]
    (source,) = container["envFrom"]
    data = named(objects, "ConfigMap", source["configMapRef"]["name"])["data"]
    return Settings.from_command_line([], data)


def pod_of(objects: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    """Return the spec of a workload's pods."""
    spec: dict[str, Any] = named(objects, kind, name)["spec"]["template"]["spec"]
    return spec


def selects(objects: list[dict[str, Any]], kind: str, name: str) -> dict[str, str]:
    """Return the labels of a workload's pods."""
    labels: dict[str, str] = named(objects, kind, name)["spec"]["template"]["metadata"]["labels"]
    return labels


def test_replicas_lose_nothing_with_the_store(objects: list[dict[str, Any]]) -> None:
    """Replies are durable, and the store setting names the service of the store's pods."""
    settings = settings_of(objects)
    service = named(objects, "Service", "ntm-store")
    (port,) = service["spec"]["ports"]

    assert settings.store == f"redis://{service['metadata']['name']}:{port['port']}"
    assert settings.durability == "synchronous"
    assert service["spec"]["selector"].items() <= selects(objects, *WORKLOADS[1]).items()


def test_a_pod_has_time_to_drain_and_to_store(objects: list[dict[str, Any]]) -> None:
    """The hook, the drain, the time for the store and the end of streams fit the grace period."""
    pod = pod_of(objects, *REPLICAS)
    (container,) = pod["containers"]
    before = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    drain = 2 * settings_of(objects).drain_seconds

    assert before + drain + STREAMS_END_SECONDS < pod["terminationGracePeriodSeconds"]


def test_the_balancers_configuration_is_the_tested_one(objects: list[dict[str, Any]]) -> None:
    """The ConfigMap holds deploy/balancers/envoy.yaml, which the balancer tests use."""
    text = (DEPLOY / "balancers" / "envoy.yaml").read_text()
    (volume,) = pod_of(objects, *WORKLOADS[0])["volumes"]
    given = named(objects, "ConfigMap", volume["configMap"]["name"])["data"]["envoy.yaml"]

    assert given == text


def test_the_balancer_knows_every_pod_by_a_name_that_stays(objects: list[dict[str, Any]]) -> None:
    """Envoy has the name and port of as many pods as the autoscaler can ask for, ready or not."""
    text = (DEPLOY / "balancers" / "envoy.yaml").read_text()
    (cluster,) = yaml.safe_load(text)["static_resources"]["clusters"]
    replicas = named(objects, *REPLICAS)
    service = named(objects, "Service", replicas["spec"]["serviceName"])["spec"]
    scaler = named(objects, "HorizontalPodAutoscaler")["spec"]
    (port,) = service["ports"]

    assert "strategy" not in replicas["spec"]
    assert service["clusterIP"] == "None"  # each pod has a name of its own
    assert service["publishNotReadyAddresses"] is True
    assert scaler["scaleTargetRef"]["kind"] == replicas["kind"]
    pods = [f"ntm-{number}.ntm-replicas" for number in range(scaler["maxReplicas"])]
    known = addresses(cluster)
    assert set(pods) <= set(known)
    assert {known[pod] for pod in pods} == {port["port"]}


def test_the_balancer_pings_no_more_than_the_server_allows() -> None:
    """Envoy's pings come soon enough to leave a hung server, and no more often than is allowed."""
    text = (DEPLOY / "balancers" / "envoy.yaml").read_text()
    (cluster,) = yaml.safe_load(text)["static_resources"]["clusters"]
    (options,) = cluster["typed_extension_protocol_options"].values()
    http2 = options["explicit_http_config"]["http2_protocol_options"]

    assert float(http2["connection_keepalive"]["interval"].removesuffix("s")) > PING_SECONDS


def test_the_ring_can_be_divided_exactly() -> None:
    """Each replica has a locality of the same weight, and the share is an exact binary fraction."""
    text = (DEPLOY / "balancers" / "envoy.yaml").read_text()
    (cluster,) = yaml.safe_load(text)["static_resources"]["clusters"]
    localities = cluster["load_assignment"]["endpoints"]

    assert len({locality["locality"]["sub_zone"] for locality in localities}) == len(localities)
    assert {locality["load_balancing_weight"] for locality in localities} == {1}
    assert len(localities).bit_count() == 1
    assert cluster["ring_hash_lb_config"]["minimum_ring_size"] % len(localities) == 0


def test_policies_let_through_what_is_needed(objects: list[dict[str, Any]]) -> None:
    """Replicas reach the store, the balancer reaches replicas, and both reach the DNS."""
    server = named(objects, "NetworkPolicy")["spec"]
    store = named(objects, "NetworkPolicy", "ntm-store")["spec"]
    balancer = named(objects, "NetworkPolicy", "ntm-balancer")["spec"]
    replica = selects(objects, *REPLICAS)
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
    """Pods have no root, no privileges, no access to the cluster, and the compose file's image."""
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
    """Each selector of a service, a policy or a budget selects pods."""
    labels = [selects(objects, kind, name) for kind, name in (REPLICAS, *WORKLOADS)]
    selectors = [
        o["spec"].get("podSelector") or o["spec"]["selector"]
        for o in objects
        if o["kind"] in {"Service", "NetworkPolicy", "PodDisruptionBudget"}
    ]

    assert len(selectors) == 9
    for selector in selectors:
        wanted = selector.get("matchLabels", selector)
        assert sum(wanted.items() <= found.items() for found in labels) == 1
