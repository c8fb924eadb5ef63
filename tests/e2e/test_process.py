"""The server as a process: it starts, reports mistakes, and stops."""

from __future__ import annotations

import json
import resource
import signal
import socket
import subprocess
import sys
import tomllib
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import grpc
import numpy as np
import pytest

from ntm.v1 import ntm_pb2 as pb
from ntm.v1 import ntm_pb2_grpc
from service import probe
from tests.conftest import Serve
from tests.e2e.calls import chunk, outputs

ROOT = Path(__file__).parents[2]

WITHOUT_TORCH = """
import sys
REFUSED = {"torch", "onnxscript", "matplotlib", "export", "ntm_client", "ntm_lab", "ntm_tasks"}
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in REFUSED:
            raise ImportError(f"{name} is not for the server")
sys.meta_path.insert(0, Refuse())
from service.__main__ import main
sys.exit(main())
"""


@contextmanager
def started(*arguments: str, before: Sequence[str] = ()) -> Iterator[subprocess.Popen[str]]:
    """
    A Python process, which is killed at the end if it still runs; `before` is a command to run it.
    """
    with subprocess.Popen(
        [*before, sys.executable, *arguments],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def ports(process: subprocess.Popen[str]) -> tuple[str, str]:
    """The addresses of the gRPC and the monitoring port, from the log line "serving"."""
    assert process.stderr is not None
    for line in process.stderr:
        if '"message": "serving"' in line:
            fields = json.loads(line)
            return fields["address"], fields["monitoring"]
    raise AssertionError(f"the server ended with {process.wait()}")


def flags(models_dir: Path) -> list[str]:
    """Flags for free ports, the CPU and the ledger."""
    return [f"--models-dir={models_dir}", "--device=cpu", "--port=0", "--metrics-port=0"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_server_cleanly(models_dir: Path, number: signal.Signals) -> None:
    """The exit status is 0, and the last log line says that all work was finished."""
    with started("-m", "service", *flags(models_dir)) as process:
        address, monitoring = ports(process)
        with urllib.request.urlopen(f"http://{monitoring}/readyz", timeout=10) as response:
            assert response.status == 200
        with grpc.insecure_channel(address) as channel:
            stub = ntm_pb2_grpc.NtmServiceStub(channel)
            session = stub.CreateSession(pb.CreateSessionRequest(model="ledger")).session
            waiting = stub.Step.future(pb.StepRequest(chunk=chunk(session.id, [[1, 1]] * 1000)))
            stub.ListSessions(pb.ListSessionsRequest())  # once this is answered, it has begun
            process.send_signal(number)
            assert outputs(waiting.result().reply)[-1].tolist() == [1000, 1000]
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 0
    assert '"finished_all_work": true' in errors.splitlines()[-1]


def test_the_server_needs_no_torch(models_dir: Path) -> None:
    """It serves when torch, matplotlib and the project's other packages cannot be imported."""
    with started("-c", WITHOUT_TORCH, *flags(models_dir)) as process:
        address, _ = ports(process)
        with grpc.insecure_channel(address) as channel:
            stub = ntm_pb2_grpc.NtmServiceStub(channel)
            session = stub.CreateSession(pb.CreateSessionRequest(model="ledger")).session
            reply = stub.Step(pb.StepRequest(chunk=chunk(session.id, [[1, 2]]))).reply
            np.testing.assert_array_equal(outputs(reply), [[1, 2]])


def test_connections_may_take_all_the_files_that_the_system_allows(models_dir: Path) -> None:
    """The server raises the limit of open files that its shell has set."""
    limited = (
        "import resource, runpy;"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (200, 2000));"
        "runpy.run_module('service', run_name='__main__')"
    )
    with started("-c", limited, *flags(models_dir)) as process:
        ports(process)
        assert resource.prlimit(process.pid, resource.RLIMIT_NOFILE) == (2000, 2000)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--device=cpu", "--cuda-graphs=yes"],
            "cannot serve: --cuda-graphs is 'yes', but networks run on the CPU",
        ),
        (["--models-dir=nowhere"], "cannot serve: nowhere does not exist; set --models-dir"),
        (["--models-dir=README.md"], "cannot serve: README.md is not a folder; set --models-dir"),
        (
            ["--store=directory:README.md/store"],
            "cannot serve: --store: README.md/store is a file, or lies in one; name a folder",
        ),
        (["--max-batch=1"], "--max-batch is 1; it must be at least 8"),
        (["--unknown"], "unrecognized arguments: --unknown"),
    ],
)
def test_a_server_that_cannot_start_says_why(arguments: list[str], message: str) -> None:
    """One sentence is on standard error, and the exit status is not 0."""
    command = [sys.executable, "-m", "service", "--port=0", "--metrics-port=0", *arguments]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert ended.returncode != 0
    assert message in ended.stderr
    assert "Traceback" not in ended.stderr


MODULES = {
    "googleapis-common-protos": "google.rpc",
    "grpcio": "grpc",
    "grpcio-health-checking": "grpc_health",
    "grpcio-reflection": "grpc_reflection",
    "ntm-client": "ntm",
    "numpy": "numpy",
    "nvidia-ml-py": "pynvml",
    "onnx": "onnx",
    "onnxruntime": "onnxruntime",
    "onnxruntime-gpu": "onnxruntime",
    "opentelemetry-api": "opentelemetry",
    "prometheus-client": "prometheus_client",
    "protobuf": "google.protobuf",
}
"""What each package that the server needs is imported as."""


def test_every_package_of_the_server_is_known() -> None:
    """The table above has what pyproject.toml declares."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert {text.partition(">")[0] for text in declared} == set(MODULES)


@pytest.mark.parametrize("module", sorted(set(MODULES.values())))
def test_a_missing_package_is_named_with_the_way_to_install_it(module: str) -> None:
    """Without any one of them, the server ends with one sentence."""
    code = (
        f"import sys; sys.modules[{module!r}] = None\n"
        "from service.__main__ import main; sys.argv[1:] = ['--models-dir=nowhere']; "
        "sys.exit(main())"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith(f"cannot serve: {module}")
    assert "pip install ./client .` in a checkout" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_stubs_of_a_newer_protobuf_than_is_installed_end_with_one_sentence() -> None:
    """As of a package of gRPC's that was made with a later protobuf."""
    code = (
        "import sys\n"
        "from google.protobuf import runtime_version as versions\n"
        "from service.__main__ import main; sys.argv[1:] = ['--models-dir=nowhere']\n"
        "here = versions.OSS_MAJOR, versions.OSS_MINOR, versions.OSS_PATCH, versions.OSS_SUFFIX\n"
        "class Newer:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'grpc_health.v1.health_pb2':\n"
        "            versions.ValidateProtobufRuntimeVersion(\n"
        "                versions.OSS_DOMAIN, here[0], here[1] + 1, 0, '', 'health.proto')\n"
        "versions.OSS_DOMAIN = versions.Domain.PUBLIC\n"
        "sys.meta_path.insert(0, Newer()); sys.exit(main())"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("cannot serve: two installed packages do not fit each other")
    assert "health.proto" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_taken_port_is_named(models_dir: Path) -> None:
    """The server does not start, because two servers on one port would share its clients."""
    with started("-m", "service", *flags(models_dir)) as process:
        address, _ = ports(process)
        port = address.rpartition(":")[2]
        command = [sys.executable, "-m", "service", *flags(models_dir), f"--port={port}"]
        second = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert second.returncode == 1
        assert f"cannot serve: cannot listen on 127.0.0.1:{port}: " in second.stderr


async def test_a_start_that_fails_closes_what_it_has_opened(serve: Serve, tmp_path: Path) -> None:
    """The port that is taken comes last; after this module no thread or socket may be left."""
    async with serve() as running:
        taken = running.server.port
        with pytest.raises(RuntimeError, match=f"cannot listen on 127.0.0.1:{taken}"):
            async with serve(port=taken, models="ledger", store=f"directory:{tmp_path}"):
                pytest.fail("the server serves")


def test_a_taken_monitoring_port_is_named(models_dir: Path) -> None:
    """The error has the address."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = [sys.executable, "-m", "service", *flags(models_dir), f"--metrics-port={port}"]
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    sentence = (
        f"cannot serve: cannot listen on 127.0.0.1:{port}: Address already in use; see "
        "--metrics-host and --metrics-port"
    )
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1] == sentence


def test_the_probe_names_a_key_that_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With TLS the probe needs the certificate and the key."""
    monkeypatch.setenv("NTM_TLS_CERTIFICATE", "a.pem")
    monkeypatch.delenv("NTM_TLS_KEY", raising=False)
    monkeypatch.setattr(sys, "argv", ["probe"])

    assert probe.main() == 1
    assert capsys.readouterr().err == "NTM_TLS_CERTIFICATE is 'a.pem'; set NTM_TLS_KEY too\n"


def test_the_probe_tells_whether_a_server_serves(
    models_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The exit status is 0 while the server serves, and 1 if nothing answers."""
    with started("-m", "service", *flags(models_dir)) as process:
        address, _ = ports(process)
        monkeypatch.setattr(sys, "argv", ["probe", address])
        assert probe.main() == 0
    assert probe.main() == 1
    captured = capsys.readouterr()
    assert captured.out == f"{address}: SERVING\n"
    assert captured.err.startswith(f"{address}: UNAVAILABLE: ")
    assert "Connection refused" in captured.err
