"""A replica: a real server process that can be killed, stopped, frozen and started again."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.support.ports import free_port

START_SECONDS = 60.0
STOP_SECONDS = 40.0
Counts = Counter[tuple[str, str, str]]
"""Values of metrics by name and by the labels that matter here: model or reason, and use."""


class Replica:
    """Keeps its ports when it is started again; all its lines are in one log."""

    def __init__(self, name: str, folder: Path, *flags: str) -> None:
        """Nothing is started yet."""
        self.name = name
        self.port, self._metrics_port = free_port(), free_port()
        self._log = folder / f"{name}.log"
        self._refusals = folder / f"{name}.refusals"
        self._refusals.touch()
        self._earlier: Counter[str] = Counter()
        """What the processes before this one have refused."""
        self._flags = [
            *("--device=cpu", *flags),
            *(f"--port={self.port}", f"--metrics-port={self._metrics_port}"),
        ]
        self.skew_seconds = 0.0
        """By how much its calendar is wrong once it is started anew."""
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """Start it and wait until it serves."""
        self._earlier = self.refusals()
        self._process = await asyncio.to_thread(self._started)
        async with asyncio.timeout(START_SECONDS):
            while not await asyncio.to_thread(self._is_ready):
                assert self._process.poll() is None, f"{self.name} ended; see {self._log}"
                await asyncio.sleep(0.05)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if it was started."""
        if self._process is not None:
            self._process.send_signal(number)

    def kill(self) -> None:
        """Kill it, at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    async def stop(self) -> str:
        """Ask it to stop; what was wrong with how it did, or nothing."""
        assert self._process is not None
        self.signal(signal.SIGTERM)
        try:
            status = await asyncio.to_thread(self._process.wait, STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            return f"{self.name} did not stop in {STOP_SECONDS:g} s"
        last = self._last_line()
        if status or '"message": "stopped"' not in last or '"finished_all_work": true' not in last:
            return f"{self.name} stopped with status {status}: {last}"
        return ""

    def not_stored_at_stop(self) -> int:
        """How many sessions its store did not take when it stopped cleanly, by its last line."""
        return int(json.loads(self._last_line())["sessions_not_stored"] or 0)

    def refusals(self) -> Counter[str]:
        """How often all its processes, killed ones too, have counted each reason to refuse."""
        return Counter(self._refusals.read_text("utf-8").split())

    def refusals_since_start(self) -> Counter[str]:
        """How often the process that runs has counted each reason to refuse."""
        return self.refusals() - self._earlier

    async def counts(self) -> Counts:
        """Its metrics now; none if it does not answer in a second."""
        return await asyncio.to_thread(self._counts)

    def _last_line(self) -> str:
        return self._log.read_text("utf-8").splitlines()[-1]

    def _started(self) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "tests.stress.chaos.observed",
                    f"{self.skew_seconds}",
                    str(self._refusals),
                    *self._flags,
                ],
                cwd=Path(__file__).parents[3],
                env={**os.environ, "ORT_DISABLE_TELEMETRY": "1"},
                stdout=log,
                stderr=log,
            )

    def _is_ready(self) -> bool:
        try:
            with self._fetched("readyz") as response:
                return bool(response.status == 200)
        except OSError:
            return False

    def _counts(self) -> Counts:
        found = Counts()
        try:
            with self._fetched("metrics") as response:
                text = response.read().decode()
        except OSError:
            return found
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                labels = sample.labels
                key = labels.get("reason", labels.get("model", ""))
                found[sample.name, key, labels.get("use", "")] += int(sample.value)
        return found

    def _fetched(self, path: str) -> Any:
        url = f"http://127.0.0.1:{self._metrics_port}/{path}"
        return urllib.request.urlopen(url, timeout=1)
