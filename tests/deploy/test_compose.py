"""The compose file names what exists, and locks down and watches every service."""

from __future__ import annotations

import re
from dataclasses import fields
from typing import Any

import pytest
import yaml

from service.settings import Settings, variable
from tests.deploy.manifests import DEPLOY, addresses

COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]

UNITS = {"m": 1 << 20, "g": 1 << 30}


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_locked_down(name: str) -> None:
    """A service writes only to its volume, and has limits, a health check and no capabilities."""
    service = SERVICES[name]

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["mem_limit"]
    assert service["cpus"]
    assert service["pids_limit"]
    assert service["healthcheck"]["test"][0] == "CMD"  # a program, no shell


REPLICAS = ("ntm-0", "ntm-1", "ntm-2")
SERVERS = ("ntm", *REPLICAS)


@pytest.mark.parametrize("name", sorted(set(SERVICES) - set(SERVERS)))
def test_every_other_image_is_pinned(name: str) -> None:
    """An image from a registry has its registry and version in the file."""
    assert re.fullmatch(r"docker\.io/[\w-]+/[\w-]+:v?\d+\.\d+\.\d+", SERVICES[name]["image"])


def test_every_mount_exists() -> None:
    """Mounted files exist; volumes are declared, and each is used."""
    used = set()
    for service in SERVICES.values():
        for source, *_ in (volume.split(":") for volume in service.get("volumes", [])):
            if source.startswith("."):
                assert (DEPLOY / source).exists(), source
            else:
                used.add(source)

    assert used == set(COMPOSE["volumes"])


def test_ports_are_published_on_loopback_alone() -> None:
    """Without authentication, no port is published on another address than loopback."""
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]

    assert len(ports) >= 5
    assert [port for port in ports if not port.startswith("127.0.0.1:")] == []


@pytest.mark.parametrize("name", SERVERS)
def test_every_variable_of_the_server_is_a_setting(name: str) -> None:
    """Variables are settings with allowed values; the state limit is at most half the memory."""
    service = SERVICES[name]
    environment = {name: str(value) for name, value in service["environment"].items()}
    settings = Settings.from_command_line([], environment)
    memory = int(service["mem_limit"][:-1]) * UNITS[service["mem_limit"][-1]]

    assert set(environment) <= {variable(setting) for setting in fields(Settings)}
    assert settings.max_state_bytes <= memory / 2


@pytest.mark.parametrize("name", SERVERS)
def test_the_server_has_time_to_drain(name: str) -> None:
    """The grace period is longer than the drain, the time for the store and the end of streams."""
    service = SERVICES[name]
    settings = Settings.from_command_line(
        [], {k: str(v) for k, v in service["environment"].items()}
    )
    drain = settings.drain_seconds * (2 if settings.store else 1)

    assert int(service["stop_grace_period"].removesuffix("s")) > drain + 1


def test_replicas_share_a_store_that_is_there() -> None:
    """Replicas find the store by name, publish no port, and have the balancer's profile."""
    environments = [SERVICES[name]["environment"] for name in REPLICAS]
    (url,) = {environment["NTM_STORE"] for environment in environments}
    store = url.removeprefix("redis://").removesuffix(":6379")

    assert [name for name in REPLICAS if "ports" in SERVICES[name]] == []
    assert {tuple(SERVICES[n]["profiles"]) for n in (store, *REPLICAS, "balancer")} == {
        ("replicas",)
    }
    assert set(SERVICES["balancer"]["depends_on"]) == set(REPLICAS)


def test_the_balancer_knows_every_replica() -> None:
    """Each replica is in envoy.yaml by a name of the network and its port."""
    cluster = yaml.safe_load((DEPLOY / "balancers/envoy.yaml").read_text())["static_resources"][
        "clusters"
    ][0]
    known = addresses(cluster)

    for name in REPLICAS:
        own = set(SERVICES[name]["networks"]["default"]["aliases"]) - {"ntm-replicas"}
        assert len(own & set(known)) == 1
    assert set(known.values()) == {Settings().port}


def test_the_services_are_those_that_prometheus_knows() -> None:
    """Prometheus has the names and ports of the server and of Alertmanager in the compose file."""
    configuration = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())
    (alerting,) = configuration["alerting"]["alertmanagers"]
    targets = [t for group in alerting["static_configs"] for t in group["targets"]]
    for job in configuration["scrape_configs"]:
        targets += [t for group in job["static_configs"] for t in group["targets"]]

    (ntm,) = (job for job in configuration["scrape_configs"] if job["job_name"] == "ntm")
    (found,) = ntm["dns_sd_configs"]

    assert f"ntm:{Settings().metrics_port}" in targets
    assert (found["names"], found["port"]) == (["ntm-replicas"], Settings().metrics_port)
    for name in REPLICAS:
        assert "ntm-replicas" in SERVICES[name]["networks"]["default"]["aliases"]
    assert {target.partition(":")[0] for target in targets} <= {*SERVICES, "localhost"}
