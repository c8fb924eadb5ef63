"""The five distributions say the same of themselves."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from service import __version__

ROOT = Path(__file__).parents[2]
FOLDERS = {
    "ntm-client": "client",
    "ntm-tasks": "tasks",
    "ntm-lab": "lab",
    "ntm-service": ".",
    "ntm-export": "export",
}


def project(name: str) -> dict[str, Any]:
    """What a distribution's pyproject.toml says of it."""
    with (ROOT / FOLDERS[name] / "pyproject.toml").open("rb") as file:
        found: dict[str, Any] = tomllib.load(file)["project"]
    return found


@pytest.mark.parametrize("name", FOLDERS)
def test_all_have_one_version(name: str) -> None:
    """The server's own is read from its package, where the server finds it too."""
    found = project(name)

    assert found["name"] == name
    if name == "ntm-service":
        assert found["dynamic"] == ["version"]
    else:
        assert found["version"] == __version__


@pytest.mark.parametrize("name", FOLDERS)
def test_all_run_on_the_same_pythons_under_one_licence(name: str) -> None:
    """Python 3.11 to 3.14; each folder has the licence, so that each wheel has it."""
    found, server = project(name), project("ntm-service")
    pythons = [f"Programming Language :: Python :: 3.{minor}" for minor in (11, 12, 13, 14)]

    assert found["requires-python"] == server["requires-python"] == ">=3.11"
    assert [each for each in found["classifiers"] if "Python :: 3." in each] == pythons
    assert (ROOT / FOLDERS[name] / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


def test_the_client_depends_on_four_packages() -> None:
    """Whoever steps sessions installs no server, trainer or lab."""
    names = {each.partition(">")[0] for each in project("ntm-client")["dependencies"]}

    assert names == {"googleapis-common-protos", "grpcio", "numpy", "protobuf"}
