"""What happens to many sessions, played with measured costs: storms after a death, and wakes."""

from __future__ import annotations

import heapq
import math
from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CONNECTIONS_OF_A_REPLICA = 8
"""To each Valkey (`service.redis_store`)."""


@dataclass(frozen=True)
class Storm:
    """How the sessions of a replica that died come back."""

    seconds: NDArray[np.float64]
    """From the death until each goes on; infinite for those whose clients gave up."""
    operations: int
    """That the store was asked for, two for each session and those asked for again."""


_OPERATIONS = 2
"""Of the store for a session that is taken over: a claim and a save."""


def storm(
    sessions: int,
    replicas: int,
    takeover_seconds: float,
    store_seconds: float,
    store_timeout_seconds: float = 2.0,
    first_backoff_seconds: float = 0.1,
    largest_backoff_seconds: float = 5.0,
    resume_seconds: float = 60.0,
    seed: int = 0,
) -> Storm:
    """
    A replica dies, and all of its sessions want to go on at once, each at one of those left.

    Each is claimed, adopted and stepped, and stored before its step is answered: two operations of
    the store, with half of the takeover's work in the replica after each. A replica has a few
    operations under way and works on one session at a time; others wait, in order. An operation
    that has no answer within the store's timeout, waiting included, fails, and the client asks
    again after a pause with full jitter, as the library does. The store answers in order.
    """
    generator = np.random.default_rng(seed)
    at = generator.integers(replicas, size=sessions).tolist()
    waiting: list[deque[tuple[int, int, float, int]]] = [deque() for _ in range(replicas)]
    places, free = [CONNECTIONS_OF_A_REPLICA] * replicas, [0.0] * replicas
    store_free, operations = 0.0, 0
    seconds = np.zeros(sessions)
    # When, whose, its tries so far, operations it has done, and whether it had a place.
    events = [(0.0, session, 0, 0, False) for session in range(sessions)]
    while events:
        now, session, tries, done, had_place = heapq.heappop(events)
        replica = at[session]
        places[replica] += had_place
        if done < _OPERATIONS:
            waiting[replica].append((session, tries, now, done))
        while places[replica] and waiting[replica]:
            session, tries, asked, done = waiting[replica].popleft()
            until = asked + store_timeout_seconds
            if now < until:
                places[replica] -= 1
                operations += 1
                store_free = answered = max(now, store_free) + store_seconds
                if answered < until:
                    worked = max(answered, free[replica]) + takeover_seconds / _OPERATIONS
                    free[replica] = seconds[session] = worked
                    heapq.heappush(events, (worked, session, tries, done + 1, True))
                    continue
                heapq.heappush(events, (until, session, tries, _OPERATIONS, True))
            longest = min(first_backoff_seconds * 2.0**tries, largest_backoff_seconds)
            again = max(now, until + generator.uniform(0, longest))
            if again < resume_seconds:
                heapq.heappush(events, (again, session, tries + 1, done, False))
            else:
                seconds[session] = math.inf
    return Storm(seconds, operations)


def requests(sessions: int, count: int, exponent: float, seed: int = 0) -> NDArray[np.int64]:
    """Which session steps next, `count` times: the k-th most active as often as 1 / k^exponent."""
    weights = np.arange(1, sessions + 1) ** -exponent
    generator = np.random.default_rng(seed)
    return generator.choice(sessions, count, p=weights / weights.sum())


def misses(asked: NDArray[np.int64], most_awake: int, at_once: int = 64) -> NDArray[np.bool_]:
    """
    Whether each session that is asked for is asleep.

    When all but a sixteenth of the places are taken, those unused for longest are put to sleep,
    some at once (`service.keeper`).
    """
    awake: OrderedDict[int, None] = OrderedDict()
    asleep = np.empty(len(asked), bool)
    for number, session in enumerate(asked.tolist()):
        asleep[number] = session not in awake
        awake[session] = None
        awake.move_to_end(session)
        if len(awake) > most_awake - most_awake // 16:
            for _ in range(min(at_once, len(awake) - 1)):
                awake.popitem(last=False)
    return asleep


Times = tuple[float, Mapping[float, float]]
"""How long a step keeps its replica busy, and quantiles of how long it takes alone; seconds."""


def step_seconds(
    asleep: NDArray[np.bool_], rate: float, resident: Times, sleeper: Times, seed: int = 0
) -> NDArray[np.float64]:
    """
    How long each step takes that comes to a replica at random, `rate` a second.

    The replica works on one at a time, in order; what a step waits for that is added to what it
    takes alone.
    """
    generator = np.random.default_rng(seed)
    arrivals = np.cumsum(generator.exponential(1 / rate, len(asleep)))
    waited, free = np.empty(len(asleep)), 0.0
    for number, (now, sleeps) in enumerate(zip(arrivals.tolist(), asleep.tolist(), strict=True)):
        waited[number] = max(0.0, free - now)
        free = max(now, free) + (sleeper if sleeps else resident)[0]
    alone = [
        np.interp(generator.random(len(asleep)), list(times[1]), list(times[1].values()))
        for times in (resident, sleeper)
    ]
    return waited + np.where(asleep, alone[1], alone[0])
