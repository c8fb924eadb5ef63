"""A server process, and what can be seen of it from outside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from tests.stress.flood.tally import Target

_ROOT = Path(__file__).parents[3]
_MESSAGE_BYTES = 4 << 20


class Watched:
    """A server of its own, with its resident memory, open files and metrics."""

    def __init__(self, process: subprocess.Popen[str], target: Target) -> None:
        """Watch a process that serves."""
        self.target = target
        self._process = process
        self._folder = Path("/proc") / str(process.pid)

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    @property
    def resident_bytes(self) -> int:
        """Memory that it has now."""
        pages = int((self._folder / "statm").read_text("utf-8").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    @property
    def peak_bytes(self) -> int:
        """Most memory that it ever had."""
        text = (self._folder / "status").read_text("utf-8")
        return 1024 * int(text.partition("VmHWM:")[2].split()[0])

    @property
    def open_files(self) -> int:
        """File descriptors open now."""
        return len(list((self._folder / "fd").iterdir()))

    @property
    def cpu_seconds(self) -> float:
        """Processor time that it has taken."""
        fields = (self._folder / "stat").read_text("utf-8").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def errors(self) -> dict[str, float]:
        """How many refusals were counted, by reason."""
        return {
            sample.labels["reason"]: sample.value
            for sample in self._samples()
            if sample.name == "ntm_errors_total"
        }

    def state_bytes(self) -> int:
        """Bytes of state of the sessions that are open."""
        found = (sample.value for sample in self._samples() if sample.name == "ntm_state_bytes")
        return int(sum(found))

    def _samples(self) -> list[Sample]:
        url = f"http://{self.target.host}:{self.target.metrics_port}/metrics"
        with urllib.request.urlopen(url, timeout=30) as response:
            text = response.read().decode()
        families = text_string_to_metric_families(text)
        return [sample for family in families for sample in family.samples]


@contextmanager
def watched(log: Path, *flags: str) -> Iterator[Watched]:
    """Start a server with these flags, its log in a file; kill it at the end."""
    command = [sys.executable, "-m", "service", "--device=cpu", "--port=0", "--metrics-port=0"]
    command += [f"--max-message-bytes={_MESSAGE_BYTES}", *flags]
    with (
        log.open("w", encoding="utf-8") as errors,
        subprocess.Popen(command, cwd=_ROOT, stderr=errors, encoding="utf-8") as process,
    ):
        try:
            yield Watched(process, _target(log, process))
        finally:
            process.kill()


def _target(log: Path, process: subprocess.Popen[str]) -> Target:
    """Where the server is, once it says so."""
    while True:
        for line in log.read_text("utf-8").splitlines():
            if '"message": "serving"' in line:
                fields = json.loads(line)
                host, _, port = fields["address"].rpartition(":")
                metrics_port = int(fields["monitoring"].rpartition(":")[2])
                return Target(host, int(port), metrics_port, _MESSAGE_BYTES)
        try:
            process.wait(timeout=0.05)
        except subprocess.TimeoutExpired:
            continue
        raise RuntimeError(f"the server ended:\n{log.read_text('utf-8')}")
