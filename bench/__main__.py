"""Measure ratios between the server and its limits or peers: `python -m bench [NAME ...]`."""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from io import TextIOWrapper
from pathlib import Path
from statistics import median

import grpc
import numpy
import onnxruntime

from bench import (
    arguments,
    client,
    durability,
    graphs,
    plot,
    processes,
    serving,
    training,
    triton,
    unary,
)
from bench.row import ROOT, BenchmarkUnavailable, Options, Row
from ntm_lab import outputs

BENCHMARKS: dict[str, Callable[[Options], Row | list[Row]]] = {
    **serving.BENCHMARKS,
    **unary.BENCHMARKS,
    **client.BENCHMARKS,
    **durability.BENCHMARKS,
    **graphs.BENCHMARKS,
    **triton.BENCHMARKS,
    **training.BENCHMARKS,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the named benchmarks, or all; print a table, and write JSON and a picture."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal may not have every character
    chosen = _parser().parse_args(argv)
    unknown = set(chosen.names) - set(BENCHMARKS)
    if unknown:
        names = ", ".join(sorted(unknown))
        print(f"unknown benchmarks: {names}; choose from {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    options = Options(chosen.rounds, chosen.device, chosen.checkout, chosen.against)
    if chosen.list:
        print("\n".join(BENCHMARKS))
        return 0
    versions = versions_of(options)
    if chosen.open_loop:
        measured = _open_loop(options, chosen.open_loop)
        write_json(chosen.json, versions, [], {"open loop": measured})
        return 0
    rows = _measured(chosen.names or list(BENCHMARKS), options)
    write_json(chosen.json, versions, rows, {})
    environment = ", ".join(f"{key} {value}" for key, value in versions.items())
    if rows:
        plot.draw(rows, chosen.plot, environment)
    print(f"{chosen.json}, {chosen.plot}: {environment}")
    return 0


def write_json(
    path: Path, versions: Mapping[str, str], rows: Sequence[Row], more: Mapping[str, object]
) -> None:
    """Write the rows with the values of every round."""
    path.parent.mkdir(parents=True, exist_ok=True)
    results = [{**asdict(row), "reached": row.reached} for row in rows]
    text = json.dumps({"versions": versions, "rows": results, **more}, indent=2) + "\n"
    outputs.write_text(path, text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"one of {', '.join(BENCHMARKS)}; default: all"
    )
    parser.add_argument("--list", action="store_true", help="list the benchmarks and exit")
    rounds = arguments.whole(1, arguments.MAX_ROUNDS)
    parser.add_argument(
        "--rounds", type=rounds, default=Options.rounds, help="default: %(default)s"
    )
    parser.add_argument("--device", default=Options.device, choices=("auto", "cpu", "cuda"))
    parser.add_argument("--json", type=arguments.json, default="build/bench.json", metavar="PATH")
    parser.add_argument("--plot", type=arguments.png, default="build/bench.png", metavar="PATH")
    parser.add_argument(
        "--checkout",
        type=arguments.checkout,
        default=ROOT,
        metavar="PATH",
        help="measure the server and the client of another checkout; the models and the load are "
        "of this one",
    )
    parser.add_argument(
        "--against",
        type=arguments.checkout,
        metavar="PATH",
        help="compare with an earlier checkout in the same rounds: multiplexed is then divided by "
        "the 64 streams of its server, and each row about the client has another row with its "
        "client and server",
    )
    parser.add_argument(
        "--open-loop",
        type=arguments.number(0.001, 1e9),
        metavar="RATE",
        help="instead of the table, print quantiles of the step time at RATE steps a second of 64 "
        "sessions; the rate does not depend on the server, and a step's time starts when it is due",
    )
    return parser


def _measured(names: Sequence[str], options: Options) -> list[Row]:
    rows: list[Row] = []
    for name in names:
        try:
            measured = BENCHMARKS[name](options)
        except BenchmarkUnavailable as why:
            print(f"{name:24}not run: {why}", flush=True)
            continue
        new = measured if isinstance(measured, list) else [measured]
        rows += new
        print("\n".join(row.text() for row in new), flush=True)
    return rows


def _open_loop(options: Options, rate: float) -> dict[str, float]:
    with processes.server(options) as served, processes.load() as load:
        rounds = [
            load("open_loop", address=served.address, sessions=64, rate=rate, seconds=5)
            for _ in range(options.rounds)
        ]
    measured = {name: median(each[name] for each in rounds) for name in rounds[0]}
    print(f"open loop, 64 sessions, {rate:g} steps/s requested, medians of {options.rounds} rounds")
    for name, value in measured.items():
        print(f"    {name:44}{value:12.1f}")
    return measured


def versions_of(options: Options) -> dict[str, str]:
    """Return the versions and the machine that the results depend on."""
    return {
        "python": platform.python_version(),
        "grpcio": grpc.__version__,
        "numpy": numpy.__version__,
        "onnxruntime": onnxruntime.__version__,
        "machine": f"{platform.machine()}, {processes.cores()} cores",
        "device": options.device,
    }


if __name__ == "__main__":
    sys.exit(main())
