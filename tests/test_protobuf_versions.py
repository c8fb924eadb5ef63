"""The stubs run on both major versions of protobuf that pyproject.toml admits."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

PROTOBUF_7 = Path(sys.prefix) / "protobuf7"
"""A second protobuf, out of the way of the installed one; `make test` puts it there."""

ROUND_TRIP = """
import sys
sys.path[:0] = sys.argv[1:]

import google.protobuf
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from ntm.v1 import ntm_pb2, ntm_pb2_grpc

sent = ntm_pb2.Reply(session_id="s", next_step=2, outputs=bytes(8))
assert sent == ntm_pb2.Reply.FromString(sent.SerializeToString())
sent = health_pb2.HealthCheckRequest(service="ntm.v1.NtmService")
assert sent == health_pb2.HealthCheckRequest.FromString(sent.SerializeToString())
sent = reflection_pb2.ServerReflectionRequest(host="h")
assert sent == reflection_pb2.ServerReflectionRequest.FromString(sent.SerializeToString())
assert ntm_pb2_grpc.NtmServiceStub
print(google.protobuf.__version__.partition(".")[0])
"""


@pytest.mark.parametrize(("major", "first"), [("6", []), ("7", [str(PROTOBUF_7)])])
def test_messages_survive_the_wire(major: str, first: list[str]) -> None:
    """Messages of the API, of health and of reflection are written and read back."""
    for folder in first:
        assert Path(folder).is_dir(), f"there is no {folder}: `make test` installs it"
    command = [sys.executable, "-W", "error", "-c", ROUND_TRIP, *first]
    run = subprocess.run(command, cwd=ROOT / "client", capture_output=True, text=True, check=False)

    assert (run.returncode, run.stdout.strip(), run.stderr) == (0, major, "")
