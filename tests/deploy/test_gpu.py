"""The variants for GPUs: valid, and what the base asks for apart from the GPU."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from service import __version__
from service.settings import Settings, variable
from tests.deploy.manifests import DEPLOY, KUBERNETES, ROOT, kustomize, named, program
from tests.deploy.test_compose import COMPOSE, UNITS

OVERRIDE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.gpu.yaml").read_text())
SERVER: dict[str, Any] = OVERRIDE["services"]["ntm"]


def built(folder: Path, *components: str) -> list[dict[str, Any]]:
    """Return the objects of the base with these components, as an operator would put them."""
    here = os.path.relpath(KUBERNETES, folder.resolve())
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": "ntm",
        "resources": [f"{here}/base"],
        "components": [f"{here}/{name}" for name in components],
        "images": [{"name": "ntm-service", "newName": "registry.test/ntm-service"}],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    return kustomize(folder)


@pytest.mark.parametrize(
    ("kind", "components"),
    [("Deployment", ["gpu"]), ("StatefulSet", ["store", "tls", "gpu", "balancer"])],
    ids=["alone", "with a store and a balancer"],
)
def test_each_replica_gets_a_gpu(kind: str, components: list[str], tmp_path: Path) -> None:
    """The pods ask for one GPU, NVIDIA's runtime and the image for CUDA, and use nothing else."""
    objects = built(tmp_path, *components)
    pod = named(objects, kind)["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    (source,) = container["envFrom"]
    data = named(objects, "ConfigMap", source["configMapRef"]["name"])["data"]
    settings = Settings.from_command_line([], data)

    assert pod["runtimeClassName"] == "nvidia"
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert container["image"] == f"registry.test/ntm-service:{__version__}-cuda"
    assert settings.device == "cuda"
    memory = int(container["resources"]["limits"]["memory"].removesuffix("Gi")) << 30
    assert container["resources"]["requests"]["memory"] == f"{memory >> 30}Gi"
    assert settings.max_state_bytes <= memory / 2
    assert [(each["key"], each["effect"]) for each in pod["tolerations"]] == [
        ("nvidia.com/gpu", "NoSchedule")
    ]


def test_a_pod_with_a_gpu_may_do_no_more_than_one_without(tmp_path: Path) -> None:
    """It is as locked down, has the same settings but one, and ends before the next one starts."""
    plain, other = (named(each, "Deployment") for each in (base(), built(tmp_path, "gpu")))
    (before,), (after,) = (
        each["spec"]["template"]["spec"]["containers"] for each in (plain, other)
    )

    for name in ("securityContext", "ports", "readinessProbe", "lifecycle"):
        assert after[name] == before[name]
    here, there = (each["spec"]["template"]["spec"] for each in (plain, other))
    assert there["securityContext"] == here["securityContext"]
    assert other["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}


def base() -> list[dict[str, Any]]:
    """Return the objects without a GPU."""
    return kustomize(KUBERNETES / "base")


def test_every_object_is_valid(tmp_path: Path) -> None:
    """Each object is valid by the schemas of Kubernetes and has no unknown field."""
    objects = built(tmp_path, "gpu")
    (tmp_path / "objects.yaml").write_text(yaml.safe_dump_all(objects))
    command = [program("kubernetes-validate"), "-k", "1.34", "--strict", "objects.yaml"]
    checked = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_compose_gives_the_server_one_gpu() -> None:
    """The override is of the server alone, in the form of Compose's page on GPUs."""
    (device,) = SERVER["deploy"]["resources"]["reservations"]["devices"]

    assert list(OVERRIDE["services"]) == ["ntm"]
    assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
    assert SERVER["build"]["args"]["ONNXRUNTIME"] == "onnxruntime-gpu[cuda,cudnn]"
    # By another name, so that it does not replace the image for CPUs.
    assert SERVER["image"] != COMPOSE["services"]["ntm"]["image"]


def test_every_variable_of_compose_is_a_setting() -> None:
    """With those of compose.yaml they are allowed; the state limit is at most half the memory."""
    environment = {**COMPOSE["services"]["ntm"]["environment"], **SERVER["environment"]}
    settings = Settings.from_command_line([], {k: str(v) for k, v in environment.items()})
    memory = int(SERVER["mem_limit"][:-1]) * UNITS[SERVER["mem_limit"][-1]]

    assert set(environment) <= {variable(setting) for setting in fields(Settings)}
    assert settings.device == "cuda"
    assert settings.max_state_bytes <= memory / 2


def test_the_image_asks_for_the_drivers_libraries_and_for_no_gpu() -> None:
    """CUDA's and NVML's libraries are asked for; which GPUs there are is not for the image."""
    text = (ROOT / "Dockerfile").read_text()

    assert re.search(r"^    NVIDIA_DRIVER_CAPABILITIES=compute,utility$", text, re.MULTILINE)
    assert not re.search(r"^ .*NVIDIA_VISIBLE_DEVICES=", text, re.MULTILINE)
