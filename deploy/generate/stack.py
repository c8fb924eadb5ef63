"""Start servers, Prometheus and Alertmanager as processes of this machine."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "deploy" / "prometheus"

Sample = dict[str, Any]
"""As in Prometheus's API: `metric`, the labels, and `value`, a time and a number as text."""


@dataclass(frozen=True)
class ServerAddresses:
    """The addresses of a server process."""

    address: str
    monitoring: str


@dataclass(frozen=True)
class Prometheus:
    """The HTTP API of a Prometheus."""

    url: str

    def get(self, path: str, **parameters: str) -> Any:
        """Return the data of an answer. Raises ValueError with the message of a refusal."""
        query = urllib.parse.urlencode(parameters)
        address = f"{self.url}/api/v1/{path}?{query}"
        try:
            with urllib.request.urlopen(address, timeout=10) as response:
                return json.load(response)["data"]
        except urllib.error.HTTPError as error:
            raise ValueError(f"{parameters}: {error.read().decode()}") from error

    def query(self, expr: str) -> list[Sample]:
        """Return the current samples of an expression."""
        samples: list[Sample] = self.get("query", query=expr)["result"]
        return samples


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Poll until the condition holds. Raises TimeoutError, with `what`, after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:g} s: {what}")
        time.sleep(0.2)


@contextmanager
def process(command: Sequence[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process that writes to a log, and end it on exit."""
    with log.open("wb") as output:
        started = subprocess.Popen(
            command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, env=_environment()
        )
        try:
            yield started
        finally:
            started.terminate()
            try:
                started.wait(20)
            except subprocess.TimeoutExpired:
                started.kill()
                started.wait()


@contextmanager
def replicas(folder: Path, *flags: str) -> Iterator[list[ServerAddresses]]:
    """Start two servers that share a store; enter when both serve."""
    shared = (*flags, f"--store=directory:{folder / 'store'}")
    with (
        server(folder / "first.log", *shared) as first,
        server(folder / "second.log", *shared) as second,
    ):
        yield [first, second]


@contextmanager
def server(log: Path, *flags: str) -> Iterator[ServerAddresses]:
    """Start a server on free ports; enter when it serves."""
    command = [sys.executable, "-m", "service", "--port=0", "--metrics-port=0", *flags]
    with process(command, log) as running:

        def serving() -> bool:
            assert running.poll() is None, log.read_text(encoding="utf-8")
            return '"message": "serving"' in log.read_text(encoding="utf-8")

        wait_until(serving, 60, "the server serves")
        line = next(
            line
            for line in log.read_text(encoding="utf-8").splitlines()
            if '"message": "serving"' in line
        )
        fields = json.loads(line)
        yield ServerAddresses(fields["address"], fields["monitoring"])


@contextmanager
def alertmanager(folder: Path) -> Iterator[str]:
    """Start an Alertmanager with our configuration; enter with its address when it is ready."""
    address = f"127.0.0.1:{_free_port()}"
    command = [
        "prometheus-alertmanager",
        f"--config.file={PROMETHEUS / 'alertmanager.yml'}",
        f"--storage.path={folder / 'alertmanager'}",
        f"--web.listen-address={address}",
        "--cluster.listen-address=",
    ]
    log = folder / "alertmanager.log"
    with process(command, log) as running:

        def ready() -> bool:
            assert running.poll() is None, log.read_text("utf-8")
            try:
                with urllib.request.urlopen(f"http://{address}/-/ready", timeout=10):
                    return True
            except OSError:
                return False

        wait_until(ready, 30, "Alertmanager is ready")
        yield address


@contextmanager
def prometheus(
    folder: Path, targets: Sequence[str], alerted: Sequence[str] = ()
) -> Iterator[Prometheus]:
    """Start a Prometheus with our rules that scrapes every second; enter after a first scrape."""
    file = folder / "prometheus.yml"
    file.write_text(_configuration(targets, alerted), encoding="utf-8")
    address = f"127.0.0.1:{_free_port()}"
    command = [
        "prometheus",
        f"--config.file={file}",
        f"--storage.tsdb.path={folder / 'prometheus'}",
        f"--web.listen-address={address}",
        "--log.level=warn",
    ]
    log = folder / "prometheus.log"
    with process(command, log) as running:
        asked = Prometheus(f"http://{address}")

        def up() -> bool:
            assert running.poll() is None, log.read_text("utf-8")
            try:
                return len(asked.query("up == 1")) == len(targets)
            except (OSError, ValueError):  # not listening yet, or not ready
                return False

        wait_until(up, 30, f"Prometheus has scraped {targets}")
        yield asked


def _configuration(targets: Sequence[str], alerted: Sequence[str]) -> str:
    """Return our configuration with other addresses, a second's interval and only the job ntm."""
    ours = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text("utf-8"))
    ours["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    ours["rule_files"] = [str(PROMETHEUS / file) for file in ours["rule_files"]]
    ours["alerting"]["alertmanagers"][0]["static_configs"] = [{"targets": list(alerted)}]
    jobs = {job["job_name"]: job for job in ours["scrape_configs"]}
    jobs["ntm"]["static_configs"] = [{"targets": list(targets)}]
    del jobs["ntm"]["dns_sd_configs"]
    ours["scrape_configs"] = [jobs["ntm"]]
    return yaml.safe_dump(ours)


def _environment() -> dict[str, str]:
    return {**os.environ, "ORT_DISABLE_TELEMETRY": "1"}


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port
