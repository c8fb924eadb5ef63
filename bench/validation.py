"""The simulation against reality, where reality is small enough to be had."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bench import processes, simulation
from bench.costs import Costs, counted, with_store
from bench.row import Options

MOST_AWAKE, SESSIONS, EXPONENT = 512, 4096, 0.8
"""Of the replica whose sessions step at random; half of them do."""
BUSY = 0.15
"""Share of its processor time that they are to take."""
STEPS = 2000
LOST = 500
"""Sessions that another replica takes over at once."""


def validated(options: Options, costs: Costs) -> dict[str, dict[str, float]]:
    """What was measured and what is simulated, by what it is of."""
    found: dict[str, dict[str, float]] = {}
    flags = ("--durability=synchronous", f"--max-awake-sessions={MOST_AWAKE}")
    with with_store(options, *flags) as (served, load, url):
        load("open_idle", address=served.address, sessions=SESSIONS)
        asked = simulation.requests(SESSIONS // 2, STEPS, EXPONENT)
        asleep = simulation.misses(asked, MOST_AWAKE)
        share = float(asleep[STEPS // 2 :].mean())
        rate = BUSY / busy_seconds(share, costs)
        before = counted(served, "ntm_wakes_total")
        real = load(
            "steps_at_random", address=served.address, rate=rate, count=STEPS, exponent=EXPONENT
        )
        woken = counted(served, "ntm_wakes_total") - before
        found["share of steps that wake"] = _pair(woken / STEPS, float(asleep.mean()))
        simulated = cached(asleep, rate, costs)[STEPS // 2 :]
        for name, quantile in (("p50", 0.5), ("p99", 0.99)):
            found[f"step at random, {name}, ms"] = _pair(
                real[f"{name}, us"] / 1e3, float(np.quantile(simulated, quantile)) * 1e3
            )
        waits = ("--store-timeout-seconds=30", "--durability=synchronous")
        with processes.server(options, f"--store={url}", *waits) as heir:
            load("wakings", address=heir.address, count=64)  # its network is loaded
            real = load("all_at_once", address=heir.address, count=LOST)
    takeover, claim = 1e-6 * costs["takeover us"], 1e-6 * costs["Valkey us a claim, 12 KB"]
    seconds = simulation.storm(LOST, 1, takeover, claim, store_timeout_seconds=30).seconds
    for name, share in (("half of them go on", 0.5), ("the last goes on", 1.0)):
        measured = real["p50, us" if share < 1 else "last, us"] / 1e3
        found[f"{LOST} sessions taken over at once, {name}, ms"] = _pair(
            measured, float(np.quantile(seconds, share)) * 1e3
        )
    return found


def cached(
    asleep: np.typing.NDArray[np.bool_], rate: float, costs: Mapping[str, float]
) -> np.typing.NDArray[np.float64]:
    """`simulation.step_seconds` with the costs that were measured."""

    def alone(kind: str) -> dict[float, float]:
        told = {q: 1e-6 * costs[f"{kind} p{100 * q:g}, us"] for q in (0.5, 0.9, 0.99, 0.999)}
        return {0.0: told[0.5], **told}

    resident = (busy_seconds(0, costs), alone("stored step"))
    sleeper = (busy_seconds(1, costs), alone("wake"))
    return simulation.step_seconds(asleep, rate, resident, sleeper)


def busy_seconds(share: float, costs: Mapping[str, float]) -> float:
    """A replica's processor time for a step that is stored, where such a share of them wakes."""
    awake = costs["step us, 64 streams"] + costs["save us, Valkey"]
    return 1e-6 * (share * costs["wake us"] + (1 - share) * awake)


def _pair(measured: float, simulated: float) -> dict[str, float]:
    return {"measured": measured, "simulated": simulated}
