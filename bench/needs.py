"""What a number of sessions needs, by arithmetic on measured costs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

RENEW_SECONDS = 30.0
"""How often a slow session with asynchronous durability is stored (`service.engine.saving`)."""

CONNECTIONS_OF_A_REPLICA = 8
"""To each Valkey (`service.stores.redis_store`)."""


@dataclass(frozen=True)
class Workload:
    """What clients do."""

    sessions: int
    active: float
    """Share of the sessions that step at a time; each is active for `active_seconds` in a row."""
    active_seconds: float
    steps_a_second: float
    """Of an active session."""
    chunk: int
    """Steps in a message: 1, 8 or 32, for which costs are measured."""
    every_steps: int
    """Steps between two saves, `checkpoint_every_steps`; 0 for synchronous: each chunk."""
    locations: int = 128
    awake_seconds: float = 60.0
    """How long a session stays awake that is not used, `sleep_after_seconds`."""
    record: str = "full"
    """Whether records are fresh, or full of outputs kept for clients, `MAX_REPLAY_BYTES`."""
    is_multiplexed: bool = False
    """Whether clients carry many sessions on a stream, 64, or each has its own."""


@dataclass(frozen=True)
class Unit:
    """What one replica, Valkey or Envoy may use: a rule of thumb of operators, not measured."""

    cores: float
    gigabytes: float
    gigabits_a_second: float = 10.0
    share: float = 0.6
    """Of each of these that is planned with; the rest is for peaks, and for those that failed."""


REPLICA = Unit(cores=1, gigabytes=8)
VALKEY = Unit(cores=1, gigabytes=32)
ENVOY = Unit(cores=4, gigabytes=8)


@dataclass(frozen=True)
class Needs:
    """What a workload takes."""

    steps_a_second: float
    saves_a_second: float
    wakes_a_second: float
    awake: float
    store_bytes: float
    store_bytes_a_second: float
    replicas: int
    valkeys: int
    envoys: int
    loads: dict[str, float]
    """Of each resource, how many units of its kind it would fill: 1 is one unit as planned."""

    @property
    def first(self) -> str:
        """The resource that runs out first where there is one unit of each kind."""
        return max(self.loads, key=self.loads.__getitem__)


def needed(work: Workload, costs: Mapping[str, float]) -> Needs:
    """
    What a workload takes, by arithmetic: rates times costs, over what a unit may use.

    Costs are those of `bench.costs`, in microseconds of processor time and bytes.
    """
    active = work.sessions * work.active
    steps = active * work.steps_a_second
    idle_seconds = work.active_seconds * (1 / work.active - 1)
    # Idle times are exponential: those that outlast the time that a session stays awake.
    slept = math.exp(-work.awake_seconds / idle_seconds)
    wakes = active / work.active_seconds * slept
    awake = active * (1 + idle_seconds * (1 - slept) / work.active_seconds)
    messages = steps / work.chunk
    if work.every_steps:
        each = max(work.steps_a_second / work.every_steps, 1 / RENEW_SECONDS)
        saves = min(active * each, messages) + wakes
    else:
        saves = messages
    record = costs[f"record bytes, N = {work.locations}, {work.record}"]
    streams = active / (64 if work.is_multiplexed else 1)
    way = f"chunks of {work.chunk}" if work.is_multiplexed or work.chunk > 1 else "64 streams"
    step_us = costs[f"step us, {way}"]
    if work.locations != 128:  # what a step's run takes more; the rest of a step is the same
        step_us += costs[f"step us, chunks of 32, N = {work.locations}"]
        step_us -= costs["step us, chunks of 32"]
    save_us, claim_us = (
        _by_size(f"Valkey us a {what}", record, costs) for what in ("save", "claim")
    )
    kept = _by_size("memory bytes a record", record, costs)
    moved = saves * _by_size("network bytes a save", record, costs)
    moved += wakes * _by_size("network bytes a claim", record, costs)
    envoy_us = costs[f"Envoy us a step, {'chunks of 1' if work.is_multiplexed else '64 streams'}"]
    loads = {
        "replicas: processor": _cores(
            REPLICA, steps * step_us + saves * costs["save us, Valkey"] + wakes * costs["wake us"]
        ),
        "replicas: memory": _memory(
            REPLICA,
            awake * costs[f"resident bytes, awake, N = {work.locations}"]
            + (work.sessions - awake) * costs["resident bytes, asleep"]
            + streams * costs["resident bytes, stream"],
            costs["resident bytes, at rest"],
        ),
        "store: processor": _cores(VALKEY, saves * save_us + wakes * claim_us),
        "store: memory": _memory(VALKEY, work.sessions * kept),
        "store: network": moved * 8e-9 / (VALKEY.gigabits_a_second * VALKEY.share),
        "balancers: processor": _cores(ENVOY, messages * envoy_us),
        "balancers: memory": _memory(
            ENVOY, streams * costs["Envoy bytes, stream"], costs["Envoy bytes, at rest"]
        ),
    }

    def units(kind: str) -> int:
        return math.ceil(max(load for name, load in loads.items() if name.startswith(kind)))

    return Needs(
        steps, saves, wakes, awake, work.sessions * kept, moved,
        units("replicas"), units("store"), units("balancers"), loads,
    )  # fmt: skip


def stored_step_us(costs: Mapping[str, float], share: float = 0.0) -> float:
    """
    A replica's processor time in microseconds for a step that is stored before its reply.

    `share` is the share of the steps whose session sleeps and has to be woken.
    """
    awake = costs["step us, 64 streams"] + costs["save us, Valkey"]
    return share * costs["wake us"] + (1 - share) * awake


def least_takeover_seconds(
    costs: Mapping[str, float], sessions: int, replicas: int, valkeys: int
) -> float:
    """
    The time that the takeover of sessions with full records takes at least, all asked for at once.

    It is the processor time of the busiest unit, replica or Valkey. Waiting and retries add to it.
    """
    store_us = costs["Valkey us a claim, 96 KB"] + costs["Valkey us a save, 96 KB"]
    return 1e-6 * sessions * max(costs["takeover us"] / replicas, store_us / valkeys)


def _cores(unit: Unit, microseconds_a_second: float) -> float:
    return microseconds_a_second * 1e-6 / (unit.cores * unit.share)


def _memory(unit: Unit, used: float, at_rest: float = 0.0) -> float:
    return used / (unit.gigabytes * 1e9 * unit.share - at_rest)


def _by_size(name: str, size: float, costs: Mapping[str, float]) -> float:
    """A cost of a record of that size: on the line through those of the two sizes measured."""
    small, large = costs[f"{name}, 12 KB"], costs[f"{name}, 96 KB"]
    return small + (large - small) * (size - 12_288) / (98_304 - 12_288)
