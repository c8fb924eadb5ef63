"""Rows about the client library: what a user's program reaches, against raw messages."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from statistics import median

from bench import processes
from bench.processes import LoadGenerator, Served
from bench.row import Measure, Options, Row, alternated
from bench.serving import (
    CHUNK,
    SECONDS,
    SESSIONS,
    bare_steps_a_second,
    load_network,
    loaded,
    stepped_together,
    streams,
)

ROUND_TRIPS = 1_000
THREADS = 16
LONG = 100_000
"""Steps in one call, which takes some ten seconds."""
LONG_ROUNDS = 3
SHORT = 250
"""Sessions that are opened, stepped and closed in a round. Four rounds make a thousand."""

Of = Callable[[Served, LoadGenerator], Measure]
"""Makes a measure of a server and a load generator."""


@dataclass(frozen=True)
class Compared:
    """What a row compares."""

    workload: str
    goal: float
    value: str
    """The measured value whose ratio is the row: a throughput, or a time in microseconds."""
    client: Of
    raw: Of


def step(options: Options) -> list[Row]:
    """Compare a lone step of a blocking session with a lone raw step."""
    workload = "p50, one blocking session, one step a call / raw, one step a message"
    client = partial(loaded, work="step", count=ROUND_TRIPS)
    raw = partial(loaded, work="round_trips", count=ROUND_TRIPS)
    return _rows("client-step", options, Compared(workload, 1.3, "p50, us", client, raw))


def tasks(options: Options) -> list[Row]:
    """Compare sessions that are each stepped by a task with raw sessions on one stream."""
    workload = f"{SESSIONS} sessions of one asyncio client, a task each, one step a call / raw"
    client = partial(loaded, work="tasks", sessions=SESSIONS, seconds=SECONDS)
    compared = Compared(f"{workload}, on one stream", 0.6, "steps/s", client, stepped_together)
    return _rows("client-tasks", options, compared)


def threads(options: Options) -> list[Row]:
    """Compare sessions that are each stepped by a thread with raw sessions, a stream each."""
    workload = f"{THREADS} sessions of one blocking client, a thread each, one step a call / raw"
    client = partial(loaded, work="threads", sessions=THREADS, seconds=SECONDS)
    raw = partial(streams, sessions=THREADS)
    compared = Compared(f"{workload}, a stream each", 0.5, "steps/s", client, raw)
    return _rows("client-threads", options, compared)


def long(options: Options) -> list[Row]:
    """Compare many steps in one call with bare onnxruntime at batch 1."""
    network = load_network(options)

    def loop(_: Served, __: LoadGenerator) -> Measure:
        return lambda: {"steps/s": bare_steps_a_second(network, 1)}

    workload = f"one session, {LONG:,} steps in one call / bare onnxruntime loop, batch 1"
    compared = Compared(workload, 0.9, "steps/s", partial(loaded, work="long", steps=LONG), loop)
    few = replace(options, rounds=min(options.rounds, LONG_ROUNDS))
    return _rows("client-long", few, compared)


def stream(options: Options) -> list[Row]:
    """Compare sessions with chunks on the client's stream with raw chunks on one stream."""
    workload = f"{SESSIONS} sessions on the client's stream, a task each, chunks of {CHUNK} / raw"
    client = partial(loaded, work="stream", sessions=SESSIONS, steps=CHUNK, seconds=SECONDS)
    raw = partial(stepped_together, steps=CHUNK)
    return _rows("client-stream", options, Compared(workload, 0.9, "steps/s", client, raw))


def short(options: Options) -> list[Row]:
    """Compare short sessions of a blocking client with raw calls and a raw stream."""
    workload = f"{SHORT} sessions a round: open, ten steps one by one, close; blocking / raw"
    both = partial(loaded, work="short", count=SHORT)
    return _rows("client-open", options, Compared(workload, 0.85, "sessions/s", both, both))


BENCHMARKS: dict[str, Callable[[Options], list[Row]]] = {
    "client-step": step,
    "client-tasks": tasks,
    "client-threads": threads,
    "client-long": long,
    "client-stream": stream,
    "client-open": short,
}


def _rows(name: str, options: Options, compared: Compared) -> list[Row]:
    """Measure client and raw messages alternately; those of an earlier checkout too, if asked."""
    checkouts = {"": options.checkout}
    if options.against is not None:
        checkouts["earlier "] = options.against
    measures: dict[str, Measure] = {}
    with ExitStack() as stack:
        raw = stack.enter_context(processes.load())
        for whose, checkout in checkouts.items():
            server = processes.server(replace(options, checkout=checkout))
            served = stack.enter_context(server)
            client = stack.enter_context(processes.client_load(checkout))
            measures[f"{whose}client, "] = compared.client(served, client)
            measures[f"{whose}raw, "] = compared.raw(served, raw)
        samples = alternated(options.rounds, measures)
    return [_row(name, whose, compared, samples) for whose in checkouts]


def _row(name: str, whose: str, compared: Compared, samples: dict[str, list[float]]) -> Row:
    client, raw = f"{whose}client, ", f"{whose}raw, "
    ratio = median(samples[client + compared.value]) / median(samples[raw + compared.value])
    own = {
        key: values
        for key, values in samples.items()
        if key.startswith((client, raw)) and "p90" not in key and "p99.9" not in key
    }
    at_least = not compared.value.endswith("us")
    text = f"{compared.workload}; of the earlier checkout" if whose else compared.workload
    full_name = f"{name}-{whose.strip()}" if whose else name
    return Row(full_name, text, ratio, compared.goal, at_least, own)
