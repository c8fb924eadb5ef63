"""Programs that check manifests. A test is skipped if its program is missing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"


def program(name: str) -> str:
    """Return the path of a program of the development dependencies, or skip the test."""
    path = Path(sys.executable).with_name(name)
    if not path.exists():
        pytest.skip(f"{name} is not installed beside {sys.executable}; `make test` installs it")
    return str(path)


def kustomize(folder: Path) -> list[dict[str, Any]]:
    """Return the objects that `kubectl apply -k` of a folder would send."""
    built = subprocess.run(
        [program("kubectl"), "kustomize", str(folder)], capture_output=True, text=True, check=False
    )
    assert (built.returncode, built.stderr) == (0, "")
    return list(yaml.safe_load_all(built.stdout))


def named(objects: list[dict[str, Any]], kind: str, name: str = "ntm") -> dict[str, Any]:
    """Return the only object of that kind and name."""
    (found,) = (o for o in objects if (o["kind"], o["metadata"]["name"]) == (kind, name))
    return found


def addresses(cluster: dict[str, Any]) -> dict[str, int]:
    """Return the names of the replicas behind Envoy, and their ports."""
    found = {}
    for locality in cluster["load_assignment"]["endpoints"]:
        named, nobody = locality["lb_endpoints"]
        assert nobody["health_status"] == "UNHEALTHY"
        address = named["endpoint"]["address"]["socket_address"]
        found[address["address"]] = address["port_value"]
    return found
