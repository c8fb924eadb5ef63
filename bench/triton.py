"""The peer Triton 2.51: its sequence batcher steps the same network on the same onnxruntime."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sysconfig
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from bench import perf_analyzer, processes, triton_environment
from bench.processes import MODEL, LoadGenerator
from bench.row import ROOT, BenchmarkUnavailable, Options, Row, alternated
from bench.triton_environment import FOLDER, Environment
from service.models.folder import MODEL_FILE

GRAPH = ROOT / "models" / MODEL / MODEL_FILE
WIDTH = 9
SESSIONS = 64
SECONDS = 2.0
START_SECONDS = 60
MAX_VECTORS = 24
"""The longest copy sequence for Triton; the shortest has 16 vectors."""

SEQUENCES = (1, 16, 64)
"""The numbers of sequences at once for which perf_analyzer measures both servers."""

TRITON = f"Triton, {SESSIONS} sequences, "
WORKLOADS = {
    "peer-triton": (f"{SESSIONS} sessions, one step a message, a stream each", 2.0),
    "peer-triton-multiplexed": (
        f"{SESSIONS} sessions on one stream, one step each a message",
        12.0,
    ),
    "peer-triton-chunked": (f"{SESSIONS} sessions on one stream, chunks of 32", 25.0),
}
"""By row: the workload of our server, and the goal for its throughput over Triton's best."""


def peer_triton(options: Options) -> list[Row]:
    """
    Compare our server in three workloads with Triton at the same number of sequences.

    Triton's load generator is written in C++, and ours in Python.
    """
    _check_device(options)
    environment = triton_environment.ready()
    inputs = write_sequences(FOLDER / "inputs.json")
    with (
        _triton(environment) as peer,
        processes.server(options) as ours,
        processes.load() as load,
    ):
        _check(environment, peer, inputs)

        def measured(sequences: int) -> perf_analyzer.Measured:
            command = environment.perf_analyzer
            return perf_analyzer.measure(command, peer, MODEL, inputs, sequences)

        samples = _alternated(options.rounds, lambda: measured(SESSIONS), ours.address, load)
        for sequences in (1, 16):
            samples |= _samples(f"Triton, {sequences} sequences, ", [measured(sequences)])
    return _rows(samples)


def peer_perf_analyzer(options: Options) -> list[Row]:
    """Compare our server with Triton by one load generator, perf_analyzer, which is Triton's."""
    _check_device(options)
    environment = triton_environment.ready()
    inputs = write_sequences(FOLDER / "inputs.json")
    rows = []
    with processes.server(options) as ours, _triton(environment) as peer:
        both = {"served, ": ours.address, "Triton, ": peer}
        for address in both.values():
            _check(environment, address, inputs)
        for sequences in SEQUENCES:
            measured = partial(_analyzed, environment, inputs=inputs, sequences=sequences)
            measures = {name: partial(measured, address) for name, address in both.items()}
            samples = alternated(options.rounds, measures)
            ratio = median(samples["served, steps/s"]) / median(samples["Triton, steps/s"])
            workload = f"{sequences} sequences, one step a message, both by perf_analyzer / Triton"
            rows.append(Row(f"peer-perf-analyzer-{sequences}", workload, ratio, 2.0, True, samples))
    return rows


BENCHMARKS: dict[str, Callable[[Options], Row | list[Row]]] = {
    "peer-triton": peer_triton,
    "peer-perf-analyzer": peer_perf_analyzer,
}


def _check_device(options: Options) -> None:
    if options.device == "cuda":
        raise BenchmarkUnavailable("Triton is measured on the CPU only; use --device cpu")


def _analyzed(
    environment: Environment, address: str, inputs: Path, sequences: int
) -> dict[str, float]:
    command = environment.perf_analyzer
    one = perf_analyzer.measure(command, address, MODEL, inputs, sequences)
    return {name: values[0] for name, values in _samples("", [one]).items()}


def _alternated(
    rounds: int, triton: Callable[[], perf_analyzer.Measured], ours: str, load: LoadGenerator
) -> dict[str, list[float]]:
    """Return the values of each row by its name, and the values of Triton by description."""
    measured: list[perf_analyzer.Measured] = []

    def triton_steps_a_second() -> float:
        measured.append(triton())
        return measured[-1].steps_a_second

    ours_with: dict[str, Any] = {"address": ours, "sessions": SESSIONS, "seconds": SECONDS}
    samples = alternated(
        rounds,
        {
            TRITON: triton_steps_a_second,
            "peer-triton": lambda: load("streams", **ours_with)["steps/s"],
            "peer-triton-multiplexed": lambda: load("multiplexed", steps=1, **ours_with)["steps/s"],
            "peer-triton-chunked": lambda: load("multiplexed", steps=32, **ours_with)["steps/s"],
        },
    )
    del samples[TRITON]
    return samples | _samples(TRITON, measured[1:])


def _samples(prefix: str, measured: list[perf_analyzer.Measured]) -> dict[str, list[float]]:
    return {
        prefix + "steps/s": [one.steps_a_second for one in measured],
        prefix + "p50, us": [one.p50_microseconds for one in measured],
        prefix + "p99, us": [one.p99_microseconds for one in measured],
    }


def _rows(samples: dict[str, list[float]]) -> list[Row]:
    """Return the rows. The first has all samples of Triton, the others its best throughput."""
    best = {name: values for name, values in samples.items() if name == TRITON + "steps/s"}
    details = {name: values for name, values in samples.items() if name not in WORKLOADS}
    rows: list[Row] = []
    for name, (workload, goal) in WORKLOADS.items():
        served = {"served, steps/s": samples[name]}
        ratio = median(samples[name]) / median(best[TRITON + "steps/s"])
        peer = best if rows else details
        text = f"{workload}, by a client in Python / Triton, by one in C++"
        rows.append(Row(name, text, ratio, goal, True, served | peer))
    return rows


def write_sequences(path: Path) -> Path:
    """Write copy sequences for perf_analyzer, of different lengths so that they do not align."""
    generator = np.random.default_rng(0)
    sequences = []
    for vectors in range(16, MAX_VECTORS + 1):
        steps = np.zeros((2 * vectors + 1, WIDTH))
        steps[:vectors, : WIDTH - 1] = generator.integers(0, 2, (vectors, WIDTH - 1))
        steps[vectors, WIDTH - 1] = 1
        sequences.append([{"x": step.tolist()} for step in steps])
    path.write_text(json.dumps({"data": sequences}), encoding="utf-8")
    return path


def _check(environment: Environment, address: str, inputs: Path) -> None:
    """Raise RuntimeError if Triton's outputs differ from the network's."""
    done = subprocess.run(
        [environment.python, "-m", "bench.triton_check", address, MODEL, GRAPH, inputs],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "client")},  # what the spec needs
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stderr)


@contextmanager
def _triton(environment: Environment) -> Iterator[str]:
    """Start a Triton that serves the model; enter with its address."""
    address, log = f"127.0.0.1:{_free_port()}", FOLDER / "server.log"
    with (
        log.open("w", encoding="utf-8") as output,
        subprocess.Popen(
            _command(environment, address),
            env=_variables(environment),
            stdout=output,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        try:
            _await_start(process, log)
            yield address
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()


def _command(environment: Environment, address: str) -> list[str]:
    host, port = address.split(":")
    return [
        str(environment.triton / "bin" / "tritonserver"),
        f"--model-repository={_write_repository()}",
        f"--backend-directory={environment.triton / 'backends'}",
        f"--grpc-address={host}",
        f"--grpc-port={port}",
        "--allow-http=false",
        "--allow-metrics=false",
        "--disable-auto-complete-config",
        "--exit-timeout-secs=10",
        # With the default of 8, this release crashes about every second time at 64 streams.
        "--grpc-infer-allocation-pool-size=1024",
    ]


def _variables(environment: Environment) -> dict[str, str]:
    """Return the environment in which Python models find their packages and our spec."""
    libraries = [environment.packages / "nvidia_pytriton.libs", sysconfig.get_config_var("LIBDIR")]
    return {
        **os.environ,
        "PATH": f"{environment.python.parent}:{os.environ['PATH']}",
        "LD_LIBRARY_PATH": ":".join(str(folder) for folder in libraries),
        "PYTHONPATH": str(ROOT),
        "ORT_DISABLE_TELEMETRY": "1",
    }


def _write_repository() -> Path:
    """Write Triton's model repository, with one version of one model."""
    repository = FOLDER / "models"
    version = repository / MODEL / "1"
    version.mkdir(parents=True, exist_ok=True)
    source = ROOT / "bench"
    shutil.copy(source / "triton_model.pbtxt", repository / MODEL / "config.pbtxt")
    shutil.copy(source / "triton_model.py", version / "model.py")
    shutil.copy(GRAPH, version / MODEL_FILE)
    # What the spec needs is found beside the model: Triton's Python looks nowhere else.
    shutil.copytree(ROOT / "client" / "ntm", version / "ntm", dirs_exist_ok=True)
    return repository


def _await_start(process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while "Started GRPCInferenceService" not in log.read_text(encoding="utf-8"):
        if process.poll() is not None or time.monotonic() > deadline:
            raise BenchmarkUnavailable(f"Triton did not start; see {log.relative_to(ROOT)}")
        time.sleep(0.1)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
