"""Libraries that are too old or too new for the stubs end in one sentence, wherever it starts."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from ntm.versions import NEEDED, SERVER_NEEDS, Bounds
from tests.test_boundaries import ROOT

FORMS = [
    pytest.param("grpcio", "1.70.0", "grpcio>=1.81.1", id="old grpcio"),
    pytest.param("protobuf", "6.33.4", "protobuf>=6.33.5,<8", id="old protobuf"),
    pytest.param("protobuf", "4.25.3", "protobuf>=6.33.5,<8", id="protobuf of other stubs"),
    pytest.param("protobuf", "5.29.1", "protobuf>=6.33.5,<8", id="older protobuf"),
    pytest.param("protobuf", "8.0.0", "protobuf>=6.33.5,<8", id="new protobuf"),
]

COMMANDS = {
    "service": ("", "cannot serve: ", 1),
    "service.probe": ("", "cannot ask: ", 1),
    "ntm_lab": ("models", "ntm: ", 2),
    "export": ("evaluate models/copy-ntm-lstm", "ntm-export: ", 2),
}
"""Arguments of each command, how its sentences begin, and its status."""


def _pretending(folder: Path, name: str, version: str) -> dict[str, str]:
    """
    The environment of a process that finds a library of this version, and no other.

    Old libraries lack what generated code imports. So none, not even that of onnx, may come first.
    """
    (folder / "sitecustomize.py").write_text(
        "import sys; sys.modules['google.protobuf.runtime_version'] = None"
    )
    described = folder / f"{name}-{version}.dist-info"
    described.mkdir()
    (described / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    )
    paths = [folder, ROOT, ROOT / "client", ROOT / "tasks", ROOT / "lab"]
    return {"PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(map(str, paths))}


@pytest.mark.parametrize(("name", "version", "wanted"), FORMS)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_says_what_to_install(
    command: str, name: str, version: str, wanted: str, tmp_path: Path
) -> None:
    """One line on standard error, with the version that is there and the one that is needed."""
    arguments, begins, status = COMMANDS[command]
    ended = subprocess.run(
        [sys.executable, "-m", command, *arguments.split()],
        cwd=ROOT,
        env=_pretending(tmp_path, name, version),
        capture_output=True,
        text=True,
    )
    if command == "service" and name == "grpcio":
        wanted += ",<1.86"
    sentence = (
        f"{begins}{name} {version} is installed, and {wanted} is needed; install it with "
        f"`python -m pip install '{wanted}'`\n"
    )
    assert (ended.returncode, ended.stderr) == (status, sentence)


def test_a_server_refuses_a_grpcio_that_it_was_not_tried_with(tmp_path: Path) -> None:
    """It uses an interface that another version may not have; a client does not."""
    environment = _pretending(tmp_path, "grpcio", "1.86.0")
    served = subprocess.run(
        [sys.executable, "-m", "service"], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert served.returncode == 1
    assert served.stderr.startswith("cannot serve: grpcio 1.86.0 is installed, and ")
    assert "pip install 'grpcio>=1.81.1,<1.86'" in served.stderr


@pytest.mark.parametrize(("name", "version", "wanted"), FORMS)
def test_the_library_says_what_to_install(
    name: str, version: str, wanted: str, tmp_path: Path
) -> None:
    """The import fails with the same sentence."""
    ended = subprocess.run(
        [sys.executable, "-c", "import ntm_client"],
        cwd=ROOT,
        env=_pretending(tmp_path, name, version),
        capture_output=True,
        text=True,
    )
    said = f"ntm.versions.LibraryUnfit: {name} {version} is installed, and {wanted} is needed; "
    assert ended.stderr.splitlines()[-1].startswith(said)


@pytest.mark.parametrize(("project", "needed"), [("client", NEEDED), (".", SERVER_NEEDS)])
def test_versions_are_those_of_the_package(project: str, needed: Bounds) -> None:
    """What is checked is what pip is told."""
    with (ROOT / project / "pyproject.toml").open("rb") as file:
        dependencies = tomllib.load(file)["project"]["dependencies"]
    for name, (least, below) in needed.items():
        wanted = f"{name}>={'.'.join(map(str, least))}"
        assert wanted + (f",<{'.'.join(map(str, below))}" if below else "") in dependencies


def test_every_command_is_tried() -> None:
    """Each command that a package installs, and that needs the stubs."""
    scripts = {
        script.partition(".")[0]
        for project in ("client", "tasks", "lab", "export", ".")
        for script in tomllib.loads((ROOT / project / "pyproject.toml").read_text())["project"]
        .get("scripts", {})
        .values()
    }
    assert scripts | {"service.probe"} == set(COMMANDS)  # the probe is a module alone
