"""The tables of docs/capacity.md, made from measured costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bench.costs import LOST
from bench.needs import (
    CONNECTIONS_OF_A_REPLICA,
    ENVOY,
    REPLICA,
    VALKEY,
    Workload,
    least_takeover_seconds,
    needed,
    stored_step_us,
)

SIZES = (10_000, 100_000, 1_000_000, 10_000_000, 100_000_000)

WORKLOADS = {
    "sensors: a tenth is active, for a minute in ten, a step a second in a message each, "
    "asynchronous every 256 steps, a stream for each session": Workload(
        0, active=0.1, active_seconds=60, steps_a_second=1, chunk=1, every_steps=256
    ),
    "sequences: one in a hundred is active, for ten seconds, 100 steps a second in chunks of 32, "
    "synchronous, 64 sessions on a stream": Workload(
        0, active=0.01, active_seconds=10, steps_a_second=100, chunk=32, every_steps=0,
        is_multiplexed=True,
    ),
    "large memories: one in a thousand is active, N = 1,024, for a minute, 10 steps a second in "
    "chunks of 8, asynchronous every 256 steps, a stream for each session": Workload(
        0, active=0.001, active_seconds=60, steps_a_second=10, chunk=8, every_steps=256,
        locations=1024,
    ),
}  # fmt: skip

TAKEOVERS = (
    (1_000, 1, 1), (1_000, 9, 1), (10_000, 9, 1), (10_000, 99, 1), (10_000, 99, 10)
)  # fmt: skip
"""Sessions that were active in a replica, replicas left, Valkeys."""

WAKING_SHARES = (0.0, 0.05, 0.1, 0.25, 0.5, 1.0)
"""The shares of a replica's steps that wake a session."""

Data = Mapping[str, Any]


def unit_costs(data: Data) -> str:
    """The measured costs of one replica, one Valkey and one Envoy."""
    costs = data["costs"]
    rows = []
    for name, value in costs.items():
        cores = {"Envoy us": ENVOY, "Valkey us": VALKEY}
        unit = next((unit for kind, unit in cores.items() if name.startswith(kind)), REPLICA)
        planned = ""
        if " us" in name and not any(f" {p}" in name for p in ("p50", "p90", "p99")):
            planned = f"{_number(1e6 * unit.cores * unit.share / max(value, 1e-9))} a second"
        rows.append([name, _number(value), planned])
    versions = ", ".join(f"{key} {value}" for key, value in data["versions"].items())
    text = (
        f"Measured on {data['date']} ({versions}), medians of {data['rounds']} rounds, in "
        f"{data['minutes']:.0f} minutes. The last column is computed: a unit's cores, times "
        f"{REPLICA.share:.0%}, over the cost."
    )
    return f"{text}\n\n{_table(['cost', 'measured', 'so one unit, as planned'], rows)}"


def needs(data: Data) -> str:
    """The needs of each workload for each number of sessions."""
    parts = []
    for text, workload in WORKLOADS.items():
        rows = []
        for sessions in SIZES:
            found = needed(Workload(**{**vars(workload), "sessions": sessions}), data["costs"])
            rows.append(
                [
                    f"{sessions:,}", _number(found.steps_a_second),
                    _number(found.saves_a_second), _number(found.wakes_a_second),
                    _number(found.awake), _number(found.store_bytes / 1e9),
                    _number(found.store_bytes_a_second * 8e-9), f"{found.replicas:,}",
                    f"{found.valkeys:,}", f"{found.envoys:,}",
                    f"{found.first} ({_number(found.loads[found.first])})",
                    _number(found.replicas * CONNECTIONS_OF_A_REPLICA),
                ]
            )  # fmt: skip
        head = [
            "sessions", "steps/s", "saves/s", "wakes/s", "awake", "store, GB", "store, Gbit/s",
            "replicas", "Valkeys", "Envoys", "runs out first (units of it)",
            "connections to a Valkey",
        ]  # fmt: skip
        parts.append(f"**{text[0].upper()}{text[1:]}.**\n\n{_table(head, rows)}")
    return "\n\n".join(parts)


def takeovers(data: Data) -> str:
    """The least time until all sessions of a dead replica go on."""
    costs = data["costs"]
    rows = [
        [
            f"{sessions:,}", f"{replicas:,}", f"{valkeys:,}",
            _number(least_takeover_seconds(costs, sessions, replicas, valkeys)),
        ]
        for sessions, replicas, valkeys in TAKEOVERS
    ]  # fmt: skip
    half, last = (costs[f"{LOST} takeovers at once, {part} done, s"] for part in ("half", "all"))
    least = least_takeover_seconds(costs, LOST, 1, 1)
    text = (
        f"Measured: one replica took over {LOST} sessions at once, from one Valkey. Half of them "
        f"went on after {_number(half)} s and the last after {_number(last)} s. The processor time "
        f"of these takeovers, {_number(least)} s, is less by a factor of {_number(last / least)}. "
        "Expect the same of every row below."
    )
    head = ["sessions active there", "replicas left", "Valkeys", "all go on after at least, s"]
    return f"{text}\n\n{_table(head, rows)}"


def wakes(data: Data) -> str:
    """The stored steps a second of a replica, by the share of them that wakes a session."""
    rows = []
    for share in WAKING_SHARES:
        step_us = stored_step_us(data["costs"], share)
        steps = 1e6 * REPLICA.cores * REPLICA.share / step_us
        rows.append([f"{share:.0%}", _number(step_us), _number(steps)])
    return _table(["steps that wake a session", "us a step", "steps/s, as planned"], rows)


TABLES: dict[str, Callable[[Data], str]] = {
    "unit costs": unit_costs,
    "needs": needs,
    "takeovers": takeovers,
    "wakes": wakes,
}
"""The function that writes each table, by the name in the page's comments."""


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _number(value: float) -> str:
    """Three significant digits, or whole numbers from 100 on."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"
