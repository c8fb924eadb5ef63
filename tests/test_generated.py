"""The committed stubs are what the contracts generate."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROTO = ROOT / "proto"

API = [f"client/ntm/v1/ntm_pb2{ending}" for ending in (".py", ".pyi", "_grpc.py")]
RECORDS = [f"service/records/v1/record_pb2{ending}" for ending in (".py", ".pyi")]
INFERENCE = [f"service/inference/v2/inference_pb2{ending}" for ending in (".py", ".pyi")]
STUBS = [*API, *RECORDS, *INFERENCE]


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with newly generated stubs, laid out as in the project."""
    folder = tmp_path_factory.mktemp("stubs")
    (folder / "client").mkdir()
    for source, root, kinds in (
        ("ntm/v1/ntm.proto", folder / "client", ("python", "pyi", "grpc_python")),
        ("service/records/v1/record.proto", folder, ("python", "pyi")),
        ("service/inference/v2/inference.proto", folder, ("python", "pyi")),
    ):
        outputs = [f"--{kind}_out={root}" for kind in kinds]
        command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTO}", *outputs, source]
        subprocess.run(command, cwd=ROOT, check=True)
    return folder


@pytest.mark.parametrize("name", STUBS)
def test_stub_is_fresh(fresh: Path, name: str) -> None:
    """A change of a contract comes with its stubs: `make proto` would change nothing."""
    assert (fresh / name).read_text() == (ROOT / name).read_text()


def test_no_other_generated_file() -> None:
    """Beside the stubs lies nothing written by hand, and every proto file has its stubs."""
    folders = {(ROOT / name).parent for name in STUBS}
    committed = {path for folder in folders for path in folder.glob("*.py*")}

    assert committed == {ROOT / name for name in STUBS}
    assert len(list(PROTO.rglob("*.proto"))) == len(folders)
