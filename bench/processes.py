"""Start servers and the load generator, each in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import urllib.request
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.row import ROOT, Options

MODEL = "copy-ntm-lstm"
"""The model of every benchmark."""


class Served:
    """A server in a process of its own."""

    def __init__(self, address: str, pid: int, monitoring: str = "") -> None:
        """`monitoring` is the address of the metrics."""
        self.address = address
        self.monitoring = monitoring
        self._pid = pid

    def metrics(self) -> str:
        """Return the page of the metrics, without a proxy, whatever the environment names."""
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(f"http://{self.monitoring}/metrics") as response:
            text: str = response.read().decode()
            return text

    def cpu_seconds(self) -> float:
        """Return the processor time so far, in user and kernel mode."""
        return _cpu_seconds(self._pid)

    def resident_bytes(self) -> int:
        """Return the resident memory."""
        pages = int(Path(f"/proc/{self._pid}/statm").read_text(encoding="utf-8").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")


class LoadGenerator:
    """A load generator in a process of its own: `bench.load` or `bench.client_load`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        """`process` reads and writes lines of JSON."""
        self._process = process

    def __call__(self, work: str, **arguments: Any) -> dict[str, float]:
        """Run some work of its module by name, and return what it measured."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps({"work": work, **arguments}), file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the load generator failed in {work} with {arguments}")
        measured: dict[str, float] = json.loads(answer)
        return measured

    def cpu_seconds(self) -> float:
        """Return the processor time so far, in user and kernel mode."""
        return _cpu_seconds(self._process.pid)


@contextmanager
def server(options: Options, *flags: str, module: str = "service") -> Iterator[Served]:
    """Start a server of the model in the way that a user does, with additional flags."""
    flags = ("--port=0", "--metrics-port=0", f"--models={MODEL}", *flags)
    command = (module, f"--device={options.device}", *flags)
    with _started(*command, folder=options.checkout, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if '"serving"' in line:
                addresses = json.loads(line)
                # A pipe that nobody reads is full after some hundred calls, and stops the server.
                rest = threading.Thread(target=deque, args=(process.stderr, 0))
                rest.start()
                try:
                    yield Served(addresses["address"], process.pid, addresses["monitoring"])
                finally:
                    process.terminate()
                    rest.join()
                return
    raise RuntimeError("the server did not start")


@contextmanager
def echo() -> Iterator[Served]:
    """Start a server that sends back every message."""
    with _started("bench.echo") as process:
        assert process.stdout is not None
        yield Served(process.stdout.readline().strip(), process.pid)


@contextmanager
def load() -> Iterator[LoadGenerator]:
    """Start a load generator of raw messages."""
    with _started("bench.load", stdin=subprocess.PIPE) as process:
        yield LoadGenerator(process)


@contextmanager
def client_load(checkout: Path) -> Iterator[LoadGenerator]:
    """Start a load generator that uses the client library of a checkout."""
    with _started("bench.client_load", client_of=checkout, stdin=subprocess.PIPE) as process:
        yield LoadGenerator(process)


@contextmanager
def _started(
    module: str,
    *flags: str,
    folder: Path = ROOT,
    client_of: Path | None = None,
    stdin: int = subprocess.DEVNULL,
    stderr: int | None = None,
) -> Iterator[subprocess.Popen[str]]:
    """
    Run a module of the checkout at `folder`.

    The packages of its folder `client` come from there too, or from the checkout `client_of`,
    whatever is installed.
    """
    paths = [str((client_of or folder).absolute() / "client"), os.environ.get("PYTHONPATH", "")]
    with subprocess.Popen(
        [sys.executable, "-m", module, *flags],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=stderr,
        encoding="utf-8",
    ) as process:
        try:
            yield process
        finally:
            process.terminate()
            process.communicate(timeout=30)


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def cores() -> int:
    """Return the number of processors that this process can use."""
    return len(os.sched_getaffinity(0))
