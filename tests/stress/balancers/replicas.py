"""Replicas as processes that share a store, to be killed and started again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from deploy.generate.stack import wait_until
from tests.support.ports import free_port
from tests.support.served import MODELS

ROOT = Path(__file__).parents[3]
MODEL = "copy-ntm-ff"


class Replica:
    """One server process. After it was killed it starts again at the same addresses."""

    def __init__(self, folder: Path, number: int, store: str, address: str) -> None:
        """Start it; `wait` tells when it serves."""
        self._log = folder / f"replica-{number}.log"
        self._store = store
        self.address, self.monitoring = address, f"127.0.0.1:{free_port()}"
        self.start()

    def start(self) -> None:
        """Start the process, where it was before if it was somewhere."""
        command = [
            *(sys.executable, "-m", "service", "--device=cpu", f"--models-dir={MODELS}"),
            *(f"--models={MODEL}", f"--store={self._store}", "--store-sync=no"),
            *("--durability=synchronous", "--parallel-runs=1", "--drain-seconds=2"),
            f"--host={self.address.rpartition(':')[0]}",
            f"--port={port(self.address)}",
            f"--metrics-port={port(self.monitoring)}",
        ]
        environment = {**os.environ, "ORT_DISABLE_TELEMETRY": "1"}
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, stderr=log, env=environment)

    def wait(self) -> None:
        """Until it serves."""
        wait_until(self._serves, 60, "the replica serves")

    def _serves(self) -> bool:
        assert self.process.poll() is None, self._log.read_text("utf-8")
        return '"message": "serving"' in self._log.read_text("utf-8")

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End the process, without a chance to tidy up unless another signal is given."""
        self.process.send_signal(number)
        self.process.wait()

    def count(self, metric: str) -> float:
        """The sum of all samples of a metric now."""
        with urllib.request.urlopen(f"http://{self.monitoring}/metrics", timeout=10) as page:
            families = list(text_string_to_metric_families(page.read().decode()))
        return sum(
            sample.value
            for family in families
            for sample in family.samples
            if sample.name == metric
        )


@contextmanager
def replicas(
    folder: Path, store: str = "", addresses: Sequence[str] = ()
) -> Iterator[list[Replica]]:
    """Replicas at these addresses, or three at free ones, with that store, or a folder as one."""
    addresses = addresses or [f"127.0.0.1:{free_port()}" for _ in range(3)]
    store = store or f"directory:{folder / 'store'}"
    started: list[Replica] = []
    try:
        for number, address in enumerate(addresses):
            started.append(Replica(folder, number, store, address))
        for replica in started:
            replica.wait()
        yield started
    finally:
        for replica in started:
            replica.kill()


def port(address: str) -> str:
    """The port of an address."""
    return address.rpartition(":")[2]
