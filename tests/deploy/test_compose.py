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
    """Nothing to write to but its volume, no capabilities, limits, a health check."""
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
    """By registry and version, so that an update is a change of the file."""
    assert re.fullmatch(r"docker\.io/[\w-]+/[\w-]+:v?\d+\.\d+\.\d+", SERVICES[name]["image"])


def test_every_mount_exists() -> None:
    """Files beside the compose file are there; volumes are declared, and each is used."""
    used = set()
    for service in SERVICES.values():
        for source, *_ in (volume.split(":") for volume in service.get("volumes", [])):
            if source.startswith("."):
                assert (DEPLOY / source).exists(), source
            else:
                used.add(source)

    assert used == set(COMPOSE["volumes"])


def test_ports_are_published_on_loopback_alone() -> None:
    """Nobody is authenticated, so what is reachable from elsewhere is for the operator to say."""
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]

    assert len(ports) >= 5
    assert [port for port in ports if not port.startswith("127.0.0.1:")] == []


@pytest.mark.parametrize("name", SERVERS)
def test_every_variable_of_the_server_is_a_setting(name: str) -> None:
    """And its values are allowed; the state takes at most half of the memory."""
    service = SERVICES[name]
    environment = {name: str(value) for name, value in service["environment"].items()}
    settings = Settings.from_command_line([], environment)
    memory = int(service["mem_limit"][:-1]) * UNITS[service["mem_limit"][-1]]

    assert set(environment) <= {variable(setting) for setting in fields(Settings)}
    assert settings.max_state_bytes <= memory / 2


@pytest.mark.parametrize("name", SERVERS)
def test_the_server_has_time_to_drain(name: str) -> None:
    """It is killed only some seconds after it should have stopped; to store takes time as well."""
    service = SERVICES[name]
    settings = Settings.from_command_line(
        [], {k: str(v) for k, v in service["environment"].items()}
    )
    drain = settings.drain_seconds * (2 if settings.store else 1)

    assert int(service["stop_grace_period"].removesuffix("s")) > drain + 1


def test_replicas_share_a_store_that_is_there() -> None:
    """They find it by its name, are behind the balancer alone, and start with the same profile."""
    environments = [SERVICES[name]["environment"] for name in REPLICAS]
    (url,) = {environment["NTM_STORE"] for environment in environments}
    store = url.removeprefix("redis://").removesuffix(":6379")

    assert [name for name in REPLICAS if "ports" in SERVICES[name]] == []
    assert {tuple(SERVICES[n]["profiles"]) for n in (store, *REPLICAS, "balancer")} == {
        ("replicas",)
    }
    assert set(SERVICES["balancer"]["depends_on"]) == set(REPLICAS)


def test_the_balancer_knows_every_replica() -> None:
    """By one of the names that it has in the network, at the port that it listens on."""
    cluster = yaml.safe_load((DEPLOY / "balancers/envoy.yaml").read_text())["static_resources"][
        "clusters"
    ][0]
    known = addresses(cluster)

    for name in REPLICAS:
        own = set(SERVICES[name]["networks"]["default"]["aliases"]) - {"ntm-replicas"}
        assert len(own & set(known)) == 1
    assert set(known.values()) == {Settings().port}


def test_the_services_are_those_that_prometheus_knows() -> None:
    """It scrapes the server and alerts Alertmanager by the names and ports that they have here."""
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
