"""The container engine, and a container of the image that is locked down as in a cluster."""

from __future__ import annotations

import os
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

LOCKED_DOWN = (
    "--read-only",
    "--cap-drop=all",
    "--security-opt=no-new-privileges",
    "--memory=1g",
    "--pids-limit=256",
)

SHELLS = ("/usr/bin/bash", "/usr/bin/dash")


def engine(*arguments: str) -> str:
    """Run a command of the engine and return its output. Raises an error with its message."""
    done = subprocess.run(
        [os.environ["ENGINE"], *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{' '.join(arguments)}: {done.stderr or done.stdout}"
    return done.stdout.strip()


def _output(*arguments: str) -> str:
    """Run a command of the engine and return its output and errors."""
    return subprocess.run(
        [os.environ["ENGINE"], *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=True,
    ).stdout


def is_podman() -> bool:
    """Return whether the engine is Podman, which leaves health checks to systemd."""
    return "podman" in os.environ["ENGINE"]


def is_healthy(container: str) -> bool:
    """Return whether a container is healthy. Raises AssertionError if Podman's check fails."""
    if is_podman():
        engine("healthcheck", "run", container)
        return True
    return engine("inspect", "-f", "{{.State.Health.Status}}", container) == "healthy"


def eventually(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait until a condition holds and raises nothing. Fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        fault: Exception | None = None
        try:
            if condition():
                return
        except (OSError, AssertionError) as error:
            fault = error
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds} s") from fault
        time.sleep(0.1)


@dataclass(frozen=True)
class Container:
    """A server in a container."""

    name: str
    address: str
    """The address of gRPC."""
    monitoring: str
    """The address of /metrics."""
    seconds_to_serving: float
    """The time from the start command to the first answer SERVING."""

    def python(self, code: str) -> str:
        """Run Python code inside and return its output."""
        return engine("exec", self.name, "python", "-c", code)

    def log(self) -> str:
        """Return the log of the server."""
        return _output("logs", self.name)


@contextmanager
def running(image: str, empty: Path) -> Iterator[Container]:
    """Run a container of the image in which every shell is an empty file."""
    name = f"ntm-test-{uuid.uuid4().hex[:8]}"
    shells = [f"--volume={empty}:{shell}:ro" for shell in SHELLS]
    # Podman would give a read-only container writable /tmp, /run and /var/tmp; a cluster does not.
    strict = ["--read-only-tmpfs=false"] if is_podman() else []
    ports = ["--publish=127.0.0.1::50051", "--publish=127.0.0.1::9464"]
    started = time.perf_counter()
    try:
        engine("run", "--detach", f"--name={name}", *LOCKED_DOWN, *strict, *shells, *ports, image)
        address = engine("port", name, "50051/tcp")
        wait_until_serving(address)
        seconds = time.perf_counter() - started
        yield Container(name, address, engine("port", name, "9464/tcp"), seconds)
    except BaseException:
        print(_output("logs", name))
        raise
    finally:
        engine("rm", "--force", name)


def wait_until_serving(address: str, seconds: float = 60.0) -> None:
    """Poll until the server answers SERVING. Raises TimeoutError after `seconds`."""
    deadline = time.monotonic() + seconds
    options = [("grpc.initial_reconnect_backoff_ms", 20), ("grpc.max_reconnect_backoff_ms", 100)]
    with grpc.insecure_channel(address, options) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        while time.monotonic() < deadline:
            try:
                answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=1, wait_for_ready=True)
            except grpc.RpcError:  # the engine may take connections before the server does
                time.sleep(0.02)
                continue
            if answer.status == health_pb2.HealthCheckResponse.SERVING:
                return
    raise TimeoutError(f"{address} did not say SERVING within {seconds} s")
