"""Compute what a number of sessions needs from measured costs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from service.engine.durability import RENEW_SECONDS

CONNECTIONS_OF_A_REPLICA = 8
"""The connections of a replica to each Valkey (`service.stores.redis_store`)."""


@dataclass(frozen=True)
class Workload:
    """The load of clients."""

    sessions: int
    active: float
    """The share of sessions that are active at a time, each for `active_seconds` in a row."""
    active_seconds: float
    steps_a_second: float
    """Steps of an active session."""
    chunk: int
    """Steps in a message: 1, 8 or 32, the measured ones."""
    every_steps: int
    """Steps between two saves (`checkpoint_every_steps`). 0 is synchronous: one a chunk."""
    locations: int = 128
    awake_seconds: float = 60.0
    """The time after which an idle session is put to sleep (`sleep_after_seconds`)."""
    record: str = "full"
    """"fresh", or "full" of outputs kept for clients (`max_replay_bytes`)."""
    is_multiplexed: bool = False
    """Whether clients carry 64 sessions on a stream. Otherwise each session has its own."""


@dataclass(frozen=True)
class Unit:
    """The planned size of a replica, Valkey or Envoy. These are rules of thumb, not measured."""

    cores: float
    gigabytes: float
    gigabits_a_second: float = 10.0
    share: float = 0.6
    """The planned share of each resource. The rest is for peaks and for failed units."""


REPLICA = Unit(cores=1, gigabytes=8)
VALKEY = Unit(cores=1, gigabytes=32)
ENVOY = Unit(cores=4, gigabytes=8)


@dataclass(frozen=True)
class Needs:
    """What a workload needs."""

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
    """The number of units that the load would fill, for each resource."""

    @property
    def first(self) -> str:
        """The resource that runs out first with one unit of each kind."""
        return max(self.loads, key=self.loads.__getitem__)


def needed(work: Workload, costs: Mapping[str, float]) -> Needs:
    """
    Compute what a workload needs: rates times costs, over the planned share of a unit.

    `costs` are those of `bench.costs`, in microseconds of processor time and bytes.
    """
    active = work.sessions * work.active
    steps = active * work.steps_a_second
    idle_seconds = work.active_seconds * (1 / work.active - 1)
    # Idle times are exponential. This is the share that is longer than `awake_seconds`.
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
    if work.locations != 128:  # only the run of a step takes longer
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
    """Return a cost for a record of `size` bytes, interpolated between the measured sizes."""
    small, large = costs[f"{name}, 12 KB"], costs[f"{name}, 96 KB"]
    return small + (large - small) * (size - 12_288) / (98_304 - 12_288)
