"""The committed stubs are what the contract generates."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
STUBS = ("ntm_pb2.py", "ntm_pb2.pyi", "ntm_pb2_grpc.py")


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with newly generated stubs."""
    folder = tmp_path_factory.mktemp("stubs")
    outputs = [f"--{kind}_out={folder}" for kind in ("python", "pyi", "grpc_python")]
    command = [sys.executable, "-m", "grpc_tools.protoc", "-Iservice/pb=proto/ntm/v1", *outputs]
    subprocess.run([*command, "proto/ntm/v1/ntm.proto"], cwd=ROOT, check=True)
    return folder / "service" / "pb"


@pytest.mark.parametrize("name", STUBS)
def test_stub_is_fresh(fresh: Path, name: str) -> None:
    """A change of the contract comes with its stubs: `make proto` would change nothing."""
    assert (fresh / name).read_text() == (ROOT / "service" / "pb" / name).read_text()


def test_no_other_generated_file(fresh: Path) -> None:
    """service/pb holds the generated files and nothing written by hand."""
    committed = {path.name for path in (ROOT / "service" / "pb").glob("*.py*")}

    assert committed == {*STUBS, "__init__.py"}
    assert {path.name for path in fresh.iterdir()} == set(STUBS)
