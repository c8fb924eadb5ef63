"""The Deployment, run by Podman instead of a cluster: `make kubernetes-test`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ntm_client import Client
from ntm_tasks import TaskSequence
from tests.containers.engine import engine, is_podman, wait_until_serving
from tests.deploy.manifests import KUBERNETES, kustomize, named
from tests.support.ports import free_port


def for_podman(objects: list[dict[str, Any]], image: str, ports: dict[str, str]) -> str:
    """
    The settings and the Deployment, less what Podman cannot do.

    It has no probes by gRPC and no hooks, and on the host's network no ports to map.
    """
    deployment = named(objects, "Deployment")
    deployment["spec"]["replicas"] = 1
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    container["image"] = image
    for name in ("ports", "lifecycle", "startupProbe", "readinessProbe", "livenessProbe"):
        del container[name]
    (source,) = container["envFrom"]
    settings = named(objects, "ConfigMap", source["configMapRef"]["name"])
    settings["data"] |= ports
    return yaml.safe_dump_all([settings, deployment])


@pytest.fixture(scope="module")
def address(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run the Deployment of the base, and return the address of the server."""
    if not is_podman():
        pytest.skip("only Podman plays manifests")
    port = free_port()
    ports = {"NTM_PORT": str(port), "NTM_METRICS_PORT": str(free_port())}
    file: Path = tmp_path_factory.mktemp("kubernetes") / "objects.yaml"
    full_name = engine("image", "inspect", "-f", "{{index .RepoTags 0}}", image)
    file.write_text(for_podman(kustomize(KUBERNETES / "base"), full_name, ports))
    engine("play", "kube", "--network=host", str(file))
    try:
        wait_until_serving(f"127.0.0.1:{port}")
        yield f"127.0.0.1:{port}"
    finally:
        engine("play", "kube", "--down", str(file))


def test_it_serves(address: str) -> None:
    """A copy of 20 vectors has no wrong bit."""
    with Client(address) as client, client.create_session("copy-ntm-lstm") as session:
        sequence = TaskSequence.draw("copy", (20,), seed=1)
        answer = sequence.answer(session.step(sequence.inputs).array)

    assert (answer == sequence.due).all()


@pytest.mark.usefixtures("address")
def test_it_runs_as_the_manifest_says() -> None:
    """The container has the Deployment's user, limits, capabilities, file system and settings."""
    (name,) = engine("ps", "--quiet", "--filter=name=ntm-pod.*-ntm").split()
    found = json.loads(engine("inspect", name))[0]
    environment = dict(entry.split("=", 1) for entry in found["Config"]["Env"])

    assert found["Config"]["User"] == "10001:10001"
    assert not found["EffectiveCaps"]
    assert found["HostConfig"]["ReadonlyRootfs"] is True
    assert found["HostConfig"]["Memory"] == 2 << 30
    assert environment["NTM_MAX_STATE_BYTES"] == str(1 << 30)
