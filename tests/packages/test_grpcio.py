"""
The oldest and the newest grpcio that the server takes.

The server is built on parts of grpcio that are private, and that any release may change.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.test_boundaries import ROOT

PIP = (sys.executable, "-m", "pip")

TESTS = (
    "tests/service/rpc",
    "tests/e2e/test_connections.py",
    "tests/e2e/test_rpcs.py",
    "tests/e2e/test_stream.py",
    "tests/e2e/test_tls.py",
)
"""What shows that calls are served: each kind of call, TLS, limits, refusals and the end."""

_WANTED = next(
    wanted
    for wanted in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    if re.match(r"grpcio\W", wanted) and not wanted.startswith("grpcio-")
)

# It runs many tests, each with the usual limit of time.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.mark.parametrize("wanted", [_WANTED.partition(",")[0].replace(">=", "=="), _WANTED])
def test_the_server_serves_with_this_grpcio(wanted: str, tmp_path: Path) -> None:
    """The tests of calls pass with it, in a process that finds it before any other."""
    if subprocess.run([*PIP, "index", "versions", "grpcio"], capture_output=True).returncode:
        pytest.skip("no package index is reached, from which grpcio comes")
    install = (*PIP, "install", "--quiet", "--no-deps", "--target", tmp_path, wanted)
    subprocess.run(install, check=True, capture_output=True)
    minor = version("grpcio").rpartition(".")[0]
    if any(tmp_path.glob(f"grpcio-{minor}.*.dist-info")):
        pytest.skip(f"all other tests run with grpcio {minor}")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"}
    where = (sys.executable, "-c", "import grpc; print(grpc.__file__)")
    found = subprocess.run(where, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert found.stdout.startswith(str(tmp_path))
    tests = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS)
    ended = subprocess.run(tests, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout
