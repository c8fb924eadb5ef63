"""`python -m bench [NAME ...]`: print a table of ratios and write them as JSON."""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from statistics import median

import grpc
import numpy
import onnxruntime

from bench import load, processes
from bench.row import Row, alternated
from service.catalogue import MODEL_FILE
from service.runtime import Network

MODEL = "copy-ntm-lstm"
ROUNDS = 5


def step_latency() -> Row:
    """One session, one step at a time: against the transport plus the network's run."""
    network = _network()
    width = network.spec.input_width
    with processes.server(MODEL) as server, processes.echo() as echo:
        samples = alternated(
            ROUNDS,
            {
                "step, us": lambda: asyncio.run(
                    load.round_trip_microseconds(server, MODEL, width, 500)
                ),
                "echo, us": lambda: asyncio.run(load.echo_microseconds(echo, width, 500)),
                "bare run, us": lambda: 1e6 / load.bare_steps_a_second(network, 1, 2000),
            },
        )
    step, echoed, bare = (median(values) for values in samples.values())
    workload = "p50, one session, one step a message / (echo + bare run of 8 rows)"
    return Row("step-latency", workload, step / (echoed + bare), 1.25, False, samples)


def chunked() -> Row:
    """Many sessions with chunks: against onnxruntime alone on the same graph and batch."""
    network = _network()
    width = network.spec.input_width
    with processes.server(MODEL) as server:
        samples = alternated(
            ROUNDS,
            {
                "served, steps/s": lambda: asyncio.run(
                    load.steps_a_second(server, MODEL, width, 64, 32, 2.0)
                ),
                "bare loop, steps/s": lambda: load.bare_steps_a_second(network, 64, 2000),
            },
        )
    served, bare = (median(values) for values in samples.values())
    workload = "64 sessions on one stream, chunks of 32 / bare loop, batch 64"
    return Row("chunked", workload, served / bare, 0.9, True, samples)


BENCHMARKS: dict[str, Callable[[], Row]] = {"step-latency": step_latency, "chunked": chunked}


def main() -> int:
    """Run the benchmarks named, or all."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--json", type=Path, default=Path("build/bench.json"), metavar="PATH")
    chosen = parser.parse_args()
    unknown = set(chosen.names) - set(BENCHMARKS)
    if unknown:
        parser.error(f"no benchmark {sorted(unknown)}; there are {sorted(BENCHMARKS)}")
    rows = []
    for name in chosen.names or BENCHMARKS:
        rows.append(BENCHMARKS[name]())
        print(rows[-1].text(), flush=True)
    versions = {
        "python": platform.python_version(),
        "grpcio": grpc.__version__,
        "numpy": numpy.__version__,
        "onnxruntime": onnxruntime.__version__,
        "machine": f"{platform.machine()}, {processes.cores()} cores",
    }
    chosen.json.parent.mkdir(parents=True, exist_ok=True)
    results = [{**asdict(row), "reached": row.reached} for row in rows]
    chosen.json.write_text(json.dumps({"versions": versions, "rows": results}, indent=2) + "\n")
    print(f"{chosen.json}: " + ", ".join(f"{key} {value}" for key, value in versions.items()))
    return 0


def _network() -> Network:
    return Network((processes.ROOT / "models" / MODEL / MODEL_FILE).read_bytes(), "cpu")


if __name__ == "__main__":
    sys.exit(main())
