"""The row about unary calls: what the server adds to the transport's own cost of a call."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

from bench import processes
from bench.row import Options, Row, alternated
from bench.serving import SESSIONS, streams


def unary(options: Options) -> Row:
    """Compare the server's processor time for a unary Step with that for a call without work."""
    with processes.server(options) as served, processes.load() as load, processes.echo() as echo:
        samples = alternated(
            options.rounds,
            {
                "served, ": streams(served, load, "unary"),
                "echo, ": streams(echo, load, "echo_unary"),
            },
        )
    cost = "server CPU, us a step"
    ratio = median(samples[f"served, {cost}"]) / median(samples[f"echo, {cost}"])
    workload = f"server CPU, {SESSIONS} sessions, a unary call a step / unary echo"
    return Row("unary", workload, ratio, 1.5, False, samples)


BENCHMARKS: dict[str, Callable[[Options], Row]] = {"unary": unary}
