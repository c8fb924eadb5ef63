"""Rows about the server: against the bare transport, the bare network, and itself."""

from __future__ import annotations

import hashlib
import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from bench import processes
from bench.processes import MODEL, LoadGenerator, Served
from bench.row import ROOT, Measure, Options, Row, alternated
from service.auth.principal import SCOPES
from service.models.folder import MODEL_FILE
from service.models.runtime import Network
from service.models.slab import Slab

SESSIONS = 64
CHUNK = 32
SECONDS = 2.0
"""The duration of a measurement of throughput, after its warm-up."""

Measured = Callable[[], dict[str, float]]

WEIGHTINGS = ["read_weighting", "write_weighting"]


def step_latency(options: Options) -> Row:
    """Compare a lone step with the transport plus a run of the network."""
    network = load_network(options)
    with server_and_load(options) as (served, load), processes.echo() as echo:
        samples = alternated(
            options.rounds,
            {
                "step, ": loaded(served, load, "round_trips", count=500),
                "echo, ": lambda: load("echo_round_trips", address=echo.address, count=500),
                "bare run, us": lambda: 1e6 / bare_steps_a_second(network, 1),
            },
        )
    step, echoed = median(samples["step, p50, us"]), median(samples["echo, p50, us"])
    ratio = step / (echoed + median(samples["bare run, us"]))
    workload = "p50, one session, one step a message / (echo + bare onnxruntime run)"
    kept = {name: values for name, values in samples.items() if "p90" not in name}
    return Row("step-latency", workload, ratio, 1.4, False, kept)


def step_throughput(options: Options) -> Row:
    """Compare many sessions with a stream each with the transport."""
    with server_and_load(options) as (served, load), processes.echo() as echo:
        samples = alternated(
            options.rounds,
            {
                "served, ": streams(served, load),
                "echo, ": streams(echo, load, "echo_streams"),
            },
        )
    workload = f"{SESSIONS} sessions, a stream each, one step a message / echo"
    return _throughput("step-throughput", workload, 0.9, samples, "served, ", "echo, ")


def multiplexed(options: Options) -> Row:
    """Compare many sessions on one stream with a stream each, of an earlier server if asked."""
    with server_and_load(options) as (served, load), ExitStack() as stack:
        measures = {
            "one stream, ": stepped_together(served, load),
            "a stream each, ": streams(served, load),
        }
        other, whose = "a stream each, ", ""
        if options.against is not None:
            earlier = replace(options, checkout=options.against)
            other, whose = "earlier server, ", " of an earlier server"
            measures[other] = streams(stack.enter_context(processes.server(earlier)), load)
        samples = alternated(options.rounds, measures)
    workload = f"{SESSIONS} sessions on one stream, one step each a message / a stream each{whose}"
    return _throughput("multiplexed", workload, 6, samples, "one stream, ", other)


def chunked(options: Options) -> Row:
    """
    Compare many sessions with chunks with bare onnxruntime, on the same graph and batch.

    Both make runs on one thread. The throughput with runs on every core is kept as a sample.
    """
    network = load_network(options)
    with (
        server_and_load(options, "--parallel-runs=1") as (served, load),
        processes.server(options, f"--parallel-runs={processes.cores()}") as parallel,
    ):
        samples = alternated(
            options.rounds,
            {
                "served, ": stepped_together(served, load, CHUNK),
                "served, a run on each core, ": stepped_together(parallel, load, CHUNK),
                "bare loop, steps/s": lambda: bare_steps_a_second(network, SESSIONS),
            },
        )
    workload = f"{SESSIONS} sessions on one stream, chunks of {CHUNK} / bare loop, batch {SESSIONS}"
    return _throughput("chunked", workload, 0.9, samples, "served, ", "bare loop, ")


def traces(options: Options) -> Row:
    """Compare steps with all weightings traced with steps without traces."""
    with server_and_load(options) as (served, load):
        samples = alternated(
            options.rounds,
            {
                "traced, ": stepped_together(served, load, CHUNK, traces=WEIGHTINGS),
                "untraced, ": stepped_together(served, load, CHUNK),
            },
        )
    workload = f"{SESSIONS} sessions, chunks of {CHUNK}, all weightings traced / none"
    return _throughput("traces", workload, 0.7, samples, "traced, ", "untraced, ")


def metrics(options: Options) -> Row:
    """Compare a server with metrics, logs and scrapes with one that records nothing."""
    with (
        server_and_load(options) as (observed, load),
        processes.server(options, module="bench.unobserved") as blind,
    ):

        def scraped() -> Mapping[str, float]:
            with _scraped(observed):
                return stepped_together(observed, load)()

        samples = alternated(
            options.rounds, {"observed, ": scraped, "blind, ": stepped_together(blind, load)}
        )
    workload = f"{SESSIONS} sessions on one stream, metrics and logs, a scrape a second / neither"
    return _throughput("metrics", workload, 0.95, samples, "observed, ", "blind, ")


def sessions(options: Options) -> Row:
    """Compare 64 active sessions among ten thousand live ones with the 64 alone."""
    live = 10_000
    flags = ("--max-sessions=20000",)
    with (
        server_and_load(options, *flags) as (crowded, load),
        processes.server(options, *flags) as empty,
    ):
        load("open_idle", address=crowded.address, sessions=live - SESSIONS)
        samples = alternated(
            options.rounds,
            {
                "10,000 live, ": stepped_together(crowded, load, CHUNK),
                "64 live, ": stepped_together(empty, load, CHUNK),
            },
        )
    ratio = median(samples["64 live, steps/s"]) / median(samples["10,000 live, steps/s"])
    workload = f"time a step of {SESSIONS} active sessions, {live:,} live / {SESSIONS} live"
    return Row("sessions", workload, ratio, 1.1, False, samples)


def memory(options: Options) -> Row:
    """Compare the server's memory for one more session with the bytes of its state."""
    samples: dict[str, list[float]] = {"bytes a session": [], "state, bytes": []}
    for _ in range(options.rounds):
        with server_and_load(options, "--max-sessions=20000") as (served, load):
            counts: list[int] = []
            resident: list[int] = []
            for _ in range(5):
                state = load("open_idle", address=served.address, sessions=2000)
                counts.append(2000 * (len(counts) + 1))
                resident.append(served.resident_bytes())
            samples["bytes a session"].append(float(np.polyfit(counts, resident, 1)[0]))
            samples["state, bytes"].append(state["state bytes"])
    ratio = median(samples["bytes a session"]) / median(samples["state, bytes"])
    workload = "resident bytes, slope of a line through 2,000 to 10,000 sessions / state bytes"
    return Row("memory", workload, ratio, 1.3, False, samples)


def long_memory(options: Options) -> Row:
    """Compare a memory of many locations with one of few."""
    with server_and_load(options) as (served, load):
        samples = alternated(
            options.rounds,
            {
                "N = 4,096, ": stepped_together(served, load, CHUNK, locations=4096),
                "N = 128, ": stepped_together(served, load, CHUNK, locations=128),
            },
        )
    ratio = median(samples["N = 128, steps/s"]) / median(samples["N = 4,096, steps/s"])
    workload = f"time a step, {SESSIONS} sessions, chunks of {CHUNK}, N = 4,096 / N = 128"
    return Row("long-memory", workload, ratio, 32, False, samples)


def fairness(options: Options) -> Row:
    """Compare sessions that step once a second among streaming sessions with them alone."""
    slow, others, chunk = 16, 63, 1024

    def measured(served: Served, load: LoadGenerator, streaming: int) -> Measure:
        return lambda: load(
            "once_a_second",
            address=served.address,
            sessions=slow,
            seconds=10,
            others=streaming,
            chunk=chunk,
        )

    with server_and_load(options) as running:
        ratio, samples = _among_others(options, running, measured, others)
    workload = f"p99 of {slow} sessions, a step a second, {others} streaming chunks of {chunk} / 0"
    return Row("fairness", workload, ratio, 4, False, samples)


def tenants(options: Options) -> Row:
    """Compare a session among many streaming sessions of another principal with it alone."""
    others, chunk = 255, 1024
    tokens = {name: secrets.token_hex() for name in ("one", "many")}

    def measured(served: Served, load: LoadGenerator, streaming: int) -> Measure:
        return lambda: load(
            "lone",
            address=served.address,
            seconds=10,
            others=streaming,
            chunk=chunk,
            token=tokens["one"],
            others_token=tokens["many"],
        )

    with TemporaryDirectory() as folder:
        file = Path(folder, "tokens.jsonl")
        file.write_text("".join(_token_line(*each) for each in tokens.items()), encoding="utf-8")
        with server_and_load(options, f"--tokens-file={file}") as running:
            ratio, samples = _among_others(options, running, measured, others)
    workload = f"p99 of one session, another principal's {others} streaming chunks of {chunk} / 0"
    return Row("tenants", workload, ratio, 4, False, samples)


def _among_others(
    options: Options,
    running: tuple[Served, LoadGenerator],
    measured: Callable[[Served, LoadGenerator, int], Measure],
    others: int,
) -> tuple[float, dict[str, list[float]]]:
    """Return the p99 among streaming sessions over the p99 alone, and the samples of both."""
    measures = {
        "among others, ": measured(*running, others),
        "alone, ": measured(*running, 0),
    }
    samples = alternated(min(options.rounds, 3), measures)
    ratio = median(samples["among others, p99, us"]) / median(samples["alone, p99, us"])
    return ratio, samples


BENCHMARKS: dict[str, Callable[[Options], Row]] = {
    "step-latency": step_latency,
    "step-throughput": step_throughput,
    "multiplexed": multiplexed,
    "chunked": chunked,
    "traces": traces,
    "metrics": metrics,
    "sessions": sessions,
    "memory": memory,
    "long-memory": long_memory,
    "fairness": fairness,
    "tenants": tenants,
}


def load_network(options: Options) -> Network:
    """Load the network of the model in this process."""
    return Network((ROOT / "models" / MODEL / MODEL_FILE).read_bytes(), options.device)


def bare_steps_a_second(network: Network, rows: int, seconds: float = 1.0) -> float:
    """
    Return the throughput in steps/s of onnxruntime on the served graphs, in this process.

    One row makes one step a run. More rows make as many steps a run as the server makes at most.
    """
    ticks = 1 if rows == 1 else network.bursts[-1]
    slab = Slab(network, network.spec.default_locations)
    slots = [slab.acquire() for _ in range(rows)]
    bound = slab.bind(rows, frozenset(), ticks)
    bound.seat(slots)
    bound.inputs[..., :8] = np.random.default_rng(0).integers(0, 2, bound.inputs[..., :8].shape)
    for _ in range(20):
        bound.run()
    started, runs = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        bound.run()
        runs += 1
    return rows * ticks * runs / (time.perf_counter() - started)


def _token_line(principal: str, token: str) -> str:
    """Return the line of a tokens file for a principal."""
    digest = hashlib.sha256(token.encode()).hexdigest()
    return json.dumps({"principal": principal, "scopes": list(SCOPES), "sha256": digest}) + "\n"


@contextmanager
def server_and_load(options: Options, *flags: str) -> Iterator[tuple[Served, LoadGenerator]]:
    """Start a server and a load generator."""
    with processes.server(options, *flags) as served, processes.load() as load:
        yield served, load


@contextmanager
def _scraped(served: Served) -> Iterator[None]:
    """Fetch the metrics of the server every second."""
    ended = threading.Event()

    def scrape() -> None:
        while not ended.wait(1.0):
            served.metrics()

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def loaded(served: Served, load: LoadGenerator, work: str, **arguments: Any) -> Measured:
    """Return a measure: the results of some work on a server, and the CPU time of a step."""
    return lambda: with_cpu(served, load, lambda: load(work, address=served.address, **arguments))


def streams(
    served: Served, load: LoadGenerator, work: str = "streams", sessions: int = SESSIONS
) -> Measured:
    """Return a measure: steps/s of sessions with a stream each, and the CPU time of a step."""
    return loaded(served, load, work, sessions=sessions, seconds=SECONDS)


def stepped_together(
    served: Served,
    load: LoadGenerator,
    steps: int = 1,
    locations: int = 0,
    traces: list[str] | None = None,
    policy: str = "POLICY_UNSPECIFIED",
) -> Measured:
    """Return a measure: steps/s of sessions on one stream, and the CPU time of a step."""
    return loaded(
        served,
        load,
        "multiplexed",
        sessions=SESSIONS,
        steps=steps,
        seconds=SECONDS,
        locations=locations,
        traces=traces or [],
        policy=policy,
    )


def with_cpu(
    served: Served, load: LoadGenerator, work: Callable[[], dict[str, float]]
) -> dict[str, float]:
    """
    Run some work; return its measurements and the processor time for a step.

    That is the processor time of the server, and of the load generator that runs the work.
    """
    both: dict[str, Served | LoadGenerator] = {"server": served, "load": load}
    before = {name: process.cpu_seconds() for name, process in both.items()}
    started = time.perf_counter()
    measured = work()
    steps = measured["steps/s"] * (time.perf_counter() - started)
    for name, process in both.items():
        used = process.cpu_seconds() - before[name]
        measured[f"{name} CPU, us a step"] = 1e6 * used / steps
    measured.pop("steps", None)
    return measured


def _throughput(
    name: str, workload: str, goal: float, samples: dict[str, list[float]], one: str, other: str
) -> Row:
    """Return the row of one throughput divided by another."""
    ratio = median(samples[f"{one}steps/s"]) / median(samples[f"{other}steps/s"])
    return Row(name, workload, ratio, goal, True, samples)
