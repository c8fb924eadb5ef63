"""The wheels, installed outside of this repository."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ntm_client import Client

ROOT = Path(__file__).parents[2]

PIP = (sys.executable, "-m", "pip")

SOURCES = ("client", "tasks", "lab", ".", "export")

CONTENTS = {
    "ntm_client": {"ntm", "ntm_client"},
    "ntm_tasks": {"ntm_tasks"},
    "ntm_lab": {"ntm_lab"},
    "ntm_service": {"service"},
    "ntm_export": {"export"},
}
"""The import names in each wheel."""

CLIENTS = {
    "googleapis-common-protos",
    "grpcio",
    "ntm-client",
    "numpy",
    "protobuf",
    "typing-extensions",  # grpcio's
}
"""All that an installation of the client consists of."""

MAX_MEGABYTES = 150
"""Of a client and what it depends on; a server's is several times as large."""

pytestmark = pytest.mark.slow


def run(*command: str | Path, cwd: Path) -> str:
    """The output of a command that finds no module of this repository; it has to succeed."""
    hidden = ("PYTHONPATH", "VIRTUAL_ENV")
    env = {name: value for name, value in os.environ.items() if name not in hidden}
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The wheel of each distribution, built from this tree without a network."""
    folder = tmp_path_factory.mktemp("wheels")
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", folder)
    run(*PIP, "wheel", *options, *(ROOT / source for source in SOURCES), cwd=folder)
    return {path.name.partition("-")[0]: path for path in folder.glob("*.whl")}


class Environment:
    """A virtual environment without pip, of this Python."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder.parent)
        self.scripts = folder / ("Scripts" if os.name == "nt" else "bin")
        self.python = self.scripts / "python"
        variables = {"base": str(folder), "platbase": str(folder)}
        self.packages = Path(sysconfig.get_path("purelib", "venv", variables))

    def install(self, *arguments: str | Path) -> None:
        """Install with the pip that runs the tests."""
        run(*PIP, "--python", self.python, "install", "--quiet", *arguments, cwd=self.folder)

    def megabytes(self) -> float:
        """The size of all that is installed."""
        return sum(each.stat().st_size for each in self.packages.rglob("*") if each.is_file()) / 1e6


@pytest.fixture(scope="module")
def everything(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """
    An environment with all five wheels.

    Third parties are those that the tests run with, for torch and onnxruntime take gigabytes.
    """
    environment = Environment(tmp_path_factory.mktemp("everything") / "venv")
    environment.install("--no-deps", *wheels.values())
    here = sysconfig.get_path("purelib")
    (environment.packages / "third_parties.pth").write_text(f"{here}\n")
    return environment


def test_a_wheel_holds_its_packages_and_the_licence(wheels: dict[str, Path]) -> None:
    """Nothing of one distribution is in another's wheel, nor anything that is no code."""
    found = {}
    for name, path in wheels.items():
        with zipfile.ZipFile(path) as wheel:
            files = wheel.namelist()
        metadata = f"{'-'.join(path.name.split('-')[:2])}.dist-info"
        assert f"{metadata}/licenses/LICENSE" in files
        assert not [file for file in files if "/." in file or "__pycache__" in file]
        found[name] = {file.partition("/")[0] for file in files} - {metadata}

    assert found == CONTENTS


def test_the_client_alone_runs_the_readmes_program(
    wheels: dict[str, Path], shipped: Client, tmp_path: Path
) -> None:
    """It brings six packages, and README's program prints what README says."""
    if subprocess.run([*PIP, "index", "versions", "numpy"], capture_output=True).returncode:
        pytest.skip("no package index is reached, from which grpcio and numpy come")
    environment = Environment(tmp_path / "venv")
    environment.install("--constraint", ROOT / "constraints.txt", wheels["ntm_client"])
    listing = run(*(*PIP, "--python", environment.python, "list", "--format", "json"), cwd=tmp_path)
    installed = {package["name"].replace("_", "-") for package in json.loads(listing)}
    print(f"{len(installed)} packages, {environment.megabytes():.0f} MB: {sorted(installed)}")

    assert installed == CLIENTS
    assert environment.megabytes() < MAX_MEGABYTES
    code, output = _readmes_program()
    program = tmp_path / "program.py"
    program.write_text(code.replace("localhost:50051", shipped.target))
    assert run(environment.python, program, cwd=tmp_path) == output


def _readmes_program() -> tuple[str, str]:
    """The program and what it prints."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (found,) = re.findall(
        r"```python\n(import numpy.*?)```\s+```\w*\n(wrong bits.*?)```", text, re.DOTALL
    )
    code, output = found
    return code, output


@contextmanager
def _serving(environment: Environment, models: Path) -> Iterator[str]:
    """The address of an installed server of these models, which ends with the block."""
    flags = (f"--models-dir={models}", "--device=cpu", "--port=0", "--metrics-port=0")
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with subprocess.Popen(
        [environment.scripts / "ntm-service", *flags],
        cwd=models,
        env=env,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stderr is not None
            said = []
            for line in process.stderr:
                said.append(line)
                if '"message": "serving"' in line:
                    break
            assert process.poll() is None, "".join(said)
            yield json.loads(said[-1])["address"]
        finally:
            process.terminate()
            process.communicate()


def test_the_server_alone_serves_a_folder_of_models(
    everything: Environment, tmp_path: Path
) -> None:
    """A server that was installed from wheels answers for a model that was copied somewhere."""
    models = tmp_path / "models"
    shutil.copytree(ROOT / "models" / "copy-ntm-ff", models / "copy-ntm-ff")
    where = "import service, ntm; print(service.__file__, ntm.__file__)"
    found = run(everything.python, "-c", where, cwd=tmp_path).split()
    assert all(Path(file).is_relative_to(everything.packages) for file in found)

    with _serving(everything, models) as address, Client(address) as client:
        with client.create_session("copy-ntm-ff") as session:
            assert session.step([0.0] * 9).array.shape == (8,)
        assert [model.name for model in client.models()] == ["copy-ntm-ff"]
        listed = run(everything.scripts / "ntm", "models", "--server", address, cwd=tmp_path)
    assert "copy-ntm-ff" in listed


@pytest.mark.parametrize(
    ("command", "named"),
    [
        ("ntm-service", ["--models-dir", "--port"]),
        ("ntm", ["demo", "trace", "stream", "decipher", "watch", "models", "sessions"]),
        ("ntm-export", ["train", "sweep", "export", "evaluate", "report"]),
    ],
)
def test_each_command_has_help(
    everything: Environment, tmp_path: Path, command: str, named: list[str]
) -> None:
    """It names what there is to give, and runs outside of the repository."""
    help_ = run(everything.scripts / command, "--help", cwd=tmp_path)

    assert [name for name in named if name not in help_] == []
