"""The services of deploy/compose.yaml work together: `make compose-test`."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.containers.engine import engine, eventually, is_healthy, is_podman, wait_until_serving

ROOT = Path(__file__).parents[2]
FILE = ROOT / "deploy" / "compose.yaml"
SERVER, PROMETHEUS, ALERTMANAGER = "127.0.0.1:50051", "127.0.0.1:9090", "127.0.0.1:9093"

pytestmark = pytest.mark.timeout(300)


def compose(*arguments: str) -> None:
    """Run a command of compose on the file, with the profile of the replicas."""
    command = (
        [sys.executable, "-m", "podman_compose", "--in-pod=false"]
        if is_podman()
        else ["docker", "compose"]
    )
    command += [f"--file={FILE}", "--profile=replicas", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def have(services: list[str]) -> list[str]:
    """Pull the images of services, or build stand-ins. Return the services that have an image."""
    images = {
        name: yaml.safe_load(FILE.read_text())["services"][name]["image"] for name in services
    }
    there = []
    for name, image in images.items():
        try:
            engine("pull", "--quiet", image)
        except AssertionError:
            if name == "grafana":
                print(f"NOTE: {image} cannot be pulled and has no stand-in; {name} is left out")
                continue
            print(
                f"NOTE: {image} cannot be pulled; a stand-in of Debian's packages takes its place"
            )
            file = f"--file={Path(__file__).with_name('stand-ins.Dockerfile')}"
            engine("build", file, f"--target={name}", f"--tag={image}", str(Path(__file__).parent))
        there.append(name)
    return there


@pytest.fixture(scope="module", autouse=True)
def services(image: str, monkeypatch_module: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Start the services and return their names."""
    monkeypatch_module.setenv("NTM_IMAGE", image)
    there = ["ntm", *have(["prometheus", "alertmanager", "valkey", "grafana"])]
    try:
        compose("up", "--detach", *there)
        yield there
    finally:
        compose("down", "--volumes")
    assert containers() == {}


@pytest.fixture(scope="module")
def monkeypatch_module() -> Iterator[pytest.MonkeyPatch]:
    """Return a monkeypatch that lasts as long as the services."""
    with pytest.MonkeyPatch.context() as patch:
        yield patch


def containers() -> dict[str, str]:
    """Return the container of each service."""
    label = "com.docker.compose.service"
    ids = engine("ps", "--all", "--quiet", "--filter=label=com.docker.compose.project=ntm").split()
    return {engine("inspect", "-f", f'{{{{index .Config.Labels "{label}"}}}}', i): i for i in ids}


def ask(address: str, path: str) -> Any:
    """Return the data of an answer of Prometheus or Alertmanager."""
    with urllib.request.urlopen(f"http://{address}{path}", timeout=5) as page:
        return json.load(page)


def test_the_demo_runs_against_the_server() -> None:
    """The demo through the published port has no wrong bit."""
    wait_until_serving(SERVER)
    command = [sys.executable, "-m", "ntm_lab", "demo", f"--server={SERVER}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("wrong bits: 0 of 160\n")


def test_every_service_is_healthy(services: list[str]) -> None:
    """Each service passes the health check of the compose file."""
    for name in services:
        eventually(partial(is_healthy, containers()[name]))


def test_prometheus_scrapes_the_server() -> None:
    """Prometheus scrapes the server by name, and has the steps of the demo."""
    query = "/api/v1/query?query=ntm_steps_total%7Bmodel%3D%22copy-ntm-lstm%22%7D"

    def counted() -> bool:
        result = ask(PROMETHEUS, query)["data"]["result"]
        return bool(result) and float(result[0]["value"][1]) >= 41

    eventually(counted)
    targets = ask(PROMETHEUS, "/api/v1/targets")["data"]["activeTargets"]
    assert {t["labels"]["job"]: t["health"] for t in targets}["ntm"] == "up"


def test_prometheus_has_loaded_every_rule() -> None:
    """Prometheus has every rule of the files, and none fails."""
    rules = [
        rule
        for group in ask(PROMETHEUS, "/api/v1/rules")["data"]["groups"]
        for rule in group["rules"]
    ]
    files = (ROOT / "deploy" / "prometheus" / "rules").glob("*.yml")
    expected = [
        rule
        for f in files
        for group in yaml.safe_load(f.read_text())["groups"]
        for rule in group["rules"]
    ]

    assert len(rules) == len(expected) > 0
    assert [rule["name"] for rule in rules if rule["health"] == "err"] == []


def test_prometheus_knows_its_alertmanager() -> None:
    """Prometheus has found Alertmanager by name, and Alertmanager is ready."""

    def found() -> bool:
        active = ask(PROMETHEUS, "/api/v1/alertmanagers")["data"]["activeAlertmanagers"]
        return [a["url"] for a in active] == ["http://alertmanager:9093/api/v2/alerts"]

    eventually(found)
    assert ask(ALERTMANAGER, "/api/v2/status")["config"]["original"]


def test_the_store_keeps_what_it_is_given() -> None:
    """A value in the store survives a restart, through the volume."""
    container = containers()["valkey"]
    eventually(lambda: engine("exec", container, "valkey-cli", "set", "key", "value") == "OK")
    engine("restart", container)
    eventually(lambda: engine("exec", container, "valkey-cli", "get", "key") == "value")
