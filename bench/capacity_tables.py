"""The tables of docs/capacity.md, from what was measured: costs, needs, storms, caches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from bench import simulation
from bench.needs import ENVOY, REPLICA, VALKEY, Workload, needed
from bench.validation import busy_seconds, cached

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

STORMS = (
    (1_000, 1, 1, 2.0), (1_000, 9, 1, 2.0), (10_000, 9, 1, 2.0), (10_000, 9, 1, 30.0),
    (10_000, 99, 1, 2.0), (10_000, 99, 10, 2.0), (10_000, 999, 100, 2.0),
)  # fmt: skip
"""Sessions that a replica had, replicas that are left, Valkeys, the store's timeout in seconds."""

CACHES = (0.5, 0.25, 0.1, 0.05, 0.02)
"""Shares of the sessions that can be awake."""
CACHED_SESSIONS, CACHED_STEPS = 20_000, 100_000

Data = Mapping[str, Any]


def unit_costs(data: Data) -> str:
    """What was measured of one replica, one Valkey and one Envoy."""
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
    told = (
        f"Measured on {data['date']} ({versions}), medians of {data['rounds']} rounds, in "
        f"{data['minutes']:.0f} minutes. The last column is computed: a unit's cores, times "
        f"{REPLICA.share:.0%}, over the cost."
    )
    return f"{told}\n\n{_table(['cost', 'measured', 'so one unit, as planned'], rows)}"


def needs(data: Data) -> str:
    """What each workload needs at each size."""
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
                    _number(found.replicas * simulation.CONNECTIONS_OF_A_REPLICA),
                ]
            )  # fmt: skip
        head = [
            "sessions", "steps/s", "saves/s", "wakes/s", "awake", "store, GB", "store, Gbit/s",
            "replicas", "Valkeys", "Envoys", "runs out first (units of it)",
            "connections to a Valkey",
        ]  # fmt: skip
        parts.append(f"**{text[0].upper()}{text[1:]}.**\n\n{_table(head, rows)}")
    return "\n\n".join(parts)


def storms(data: Data) -> str:
    """How long it takes until all sessions of a dead replica go on."""
    costs, rows = data["costs"], []
    store = (costs["Valkey us a claim, 96 KB"] + costs["Valkey us a save, 96 KB"]) / 2
    for sessions, replicas, valkeys, timeout in STORMS:
        found = simulation.storm(
            sessions,
            replicas,
            1e-6 * costs["takeover us"],
            1e-6 * store / valkeys,
            store_timeout_seconds=timeout,
        )
        back = found.seconds[np.isfinite(found.seconds)]
        told = [f"{each:.2f}" for each in np.quantile(back, [0.5, 0.99, 1.0])] if len(back) else []
        rows.append(
            [
                f"{sessions:,}", f"{replicas:,}", f"{valkeys:,}", f"{timeout:g}",
                *(told or ["-"] * 3), f"{found.operations / sessions:.2f}",
                f"{sessions - len(back):,}",
            ]
        )  # fmt: skip
    head = [
        "sessions active there", "replicas left", "Valkeys", "timeout, s", "half go on, s",
        "99 %, s", "all, s", "operations of the store a session", "gave up after 60 s",
    ]  # fmt: skip
    return _table(head, rows)


def caches(data: Data) -> str:
    """How often a step finds its session asleep, and how long it takes, by how many are awake."""
    rows = []
    costs = data["costs"]
    for share in CACHES:
        row = [f"{share:.0%}"]
        for exponent in (0.6, 1.0):
            asked = simulation.requests(CACHED_SESSIONS, CACHED_STEPS, exponent)
            asleep = simulation.misses(asked, int(share * CACHED_SESSIONS))
            half = slice(CACHED_STEPS // 2, None)
            missed = float(asleep[half].mean())
            rate = 0.5 / busy_seconds(missed, costs)
            times = cached(asleep, rate, costs)[half]
            row += [f"{missed:.1%}", _number(rate)]
            row += [_number(1e3 * float(each)) for each in np.quantile(times, [0.5, 0.99])]
        rows.append(row)
    head = ["may be awake"]
    for kind in ("even", "uneven"):
        head += [f"{kind}: steps that wake", "steps/s", "p50, ms", "p99, ms"]
    return _table(head, rows)


def validation(data: Data) -> str:
    """What was simulated over what was measured."""
    rows = [
        [
            name, _number(pair["measured"]), _number(pair["simulated"]),
            f"{pair['simulated'] / pair['measured']:.2f}",
        ]
        for name, pair in data["validation"].items()
    ]  # fmt: skip
    return _table(["", "measured", "simulated", "ratio"], rows)


TABLES: dict[str, Callable[[Data], str]] = {
    "unit costs": unit_costs,
    "needs": needs,
    "storms": storms,
    "caches": caches,
    "validation": validation,
}
"""By the names of their places in the page."""


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _number(value: float) -> str:
    """Three digits that count."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"
