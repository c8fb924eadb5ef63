"""Rows whose servers and load generators are stand-ins that answer at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bench import client, processes, serving
from bench.row import ROOT, Options, Row

EARLIER = Path("earlier")

SPEEDS = {
    # The raw work of bench.load, whatever the checkout.
    ("raw", "streams"): 4_000.0,
    ("raw", "multiplexed"): 20_000.0,
    ("raw", "round_trips"): 1_000.0,
    ("raw", "short"): 50.0,
    # That of the client.
    (ROOT, "step"): 800.0,
    (ROOT, "tasks"): 14_000.0,
    (ROOT, "threads"): 3_000.0,
    (ROOT, "stream"): 19_000.0,
    (ROOT, "long"): 9_500.0,
    (ROOT, "short"): 45.0,
    (EARLIER, "step"): 400.0,
    (EARLIER, "tasks"): 1_000.0,
}
"""Units a second: sessions for `short`, else steps."""


class Process:
    """Stands for a server, or for a load generator that answers from `SPEEDS`."""

    def __init__(self, kind: object) -> None:
        self.kind = kind
        self.address = f"of {kind}"
        self._seconds = 0.0

    def __call__(self, work: str, address: str, **_: Any) -> dict[str, float]:
        """A client works on the server of its checkout, and the earlier server is half as fast."""
        if self.kind != "raw":
            assert address == f"of {self.kind}"
        speed = SPEEDS[self.kind, work]
        if (self.kind, work) == ("raw", "streams") and address == f"of {EARLIER}":
            speed /= 2
        return {"steps/s": speed, "sessions/s": speed, "p50, us": 1e6 / speed, "p90, us": 0.0}

    def cpu_seconds(self) -> float:
        """A second more at each look."""
        self._seconds += 1
        return self._seconds


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    """No process is started, and a bare run takes 0.1 ms."""

    @contextmanager
    def server(options: Options) -> Iterator[Process]:
        yield Process(options.checkout)

    @contextmanager
    def load() -> Iterator[Process]:
        yield Process("raw")

    @contextmanager
    def client_load(checkout: Path) -> Iterator[Process]:
        yield Process(checkout)

    for stand_in in (server, load, client_load):
        monkeypatch.setattr(processes, stand_in.__name__, stand_in)
    monkeypatch.setattr(client, "load_network", lambda _: None)
    monkeypatch.setattr(client, "bare_steps_a_second", lambda *_: 10_000.0)


def test_each_row_divides_the_client_by_the_raw_work_of_its_shape() -> None:
    """A time is held to its goal from above, a throughput from below."""
    rows = [row for benchmark in client.BENCHMARKS.values() for row in benchmark(Options(1))]
    assert {row.name: (round(row.ratio, 9), row.goal, row.at_least) for row in rows} == {
        "client-step": (1.25, 1.3, False),
        "client-tasks": (0.7, 0.6, True),
        "client-threads": (0.75, 0.5, True),
        "client-long": (0.95, 0.9, True),
        "client-stream": (0.95, 0.9, True),
        "client-open": (0.9, 0.85, True),
    }
    texts = {row.name: row.workload for row in rows}
    assert "64 sessions of one asyncio client, a task each, one step" in texts["client-tasks"]
    assert "16 sessions of one blocking client, a thread each" in texts["client-threads"]
    assert "100,000 steps in one call / bare onnxruntime loop, batch 1" in texts["client-long"]
    assert "chunks of 32" in texts["client-stream"]
    assert "250 sessions a round: open, ten steps one by one, close" in texts["client-open"]


def test_a_long_call_is_measured_for_few_rounds() -> None:
    """A call of 100,000 steps takes so long that more than three rounds are not made."""
    (row,) = client.long(Options(5))
    assert row.samples["client, steps/s"] == [9_500.0] * 3


def test_rows_have_the_processor_time_of_server_and_load_generator() -> None:
    """A step's time in both processes is a sample of the client's work and of the raw work."""
    (row,) = client.tasks(Options(1))
    for whose in ("client", "raw"):
        for process in ("server", "load"):
            assert row.samples[f"{whose}, {process} CPU, us a step"][0] > 0
    assert not any("p90" in name for name in row.samples)


def test_an_earlier_checkout_has_rows_of_its_own_from_the_same_rounds() -> None:
    """Its client and server are measured together, against raw messages to that server."""
    now, before = client.step(Options(2, against=EARLIER))
    assert (now.name, round(now.ratio, 9)) == ("client-step", 1.25)
    assert (before.name, round(before.ratio, 9)) == ("client-step-earlier", 2.5)
    assert before.workload.endswith("; of the earlier checkout")
    assert before.samples["earlier client, p50, us"] == [2500.0, 2500.0]
    assert not any(name.startswith("earlier") for name in now.samples)


@pytest.mark.parametrize(("against", "ratio"), [(None, 5.0), (EARLIER, 10.0)])
def test_one_stream_is_divided_by_the_streams_of_an_earlier_server_if_asked(
    against: Path | None, ratio: float
) -> None:
    """64 streams of the earlier server are half as fast, and its row says whose they are."""
    row: Row = serving.multiplexed(Options(1, against=against))
    assert (row.ratio, row.goal, row.at_least) == (ratio, 6, True)
    assert row.workload.endswith("an earlier server") == (against is not None)
