"""One attack, in a process: `python -m tests.stress.flood.attack NAME SECONDS TARGET`."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
from collections.abc import Awaitable, Callable

from tests.stress.flood import calls, connections, frames, scrapes
from tests.stress.flood.tally import Tally, Target

ATTACKS: dict[str, Callable[[Target, Tally], Awaitable[None]]] = {
    "come-and-go": connections.come_and_go,
    "half-open": connections.half_open,
    "garbage": connections.garbage,
    "slow-preface": connections.slow_preface,
    "resets": frames.resets,
    "pings": frames.pings,
    "endless-headers": frames.endless_headers,
    "large-headers": calls.large_headers,
    "huge-messages": calls.huge_messages,
    "large-messages": calls.large_messages,
    "many-names": calls.many_names,
    "tiny-operations": calls.tiny_operations,
    "many-streams": calls.many_streams,
    "many-sessions": calls.many_sessions,
    "slow-readers": calls.slow_readers,
    "invalid-requests": calls.invalid_requests,
    "costly-reads": calls.costly_reads,
    "scrapes": scrapes.scrapes,
    "slow-scrapes": scrapes.slow_scrapes,
}
"""What each does to a server for as long as it runs."""


async def attack(name: str, seconds: float, target: Target) -> Tally:
    """Attack for so many seconds; what was seen."""
    tally = Tally()
    attacking = asyncio.ensure_future(ATTACKS[name](target, tally))
    await asyncio.wait([attacking], timeout=seconds)
    if attacking.done():
        attacking.result()  # it ends only by an error of its own
    return tally


def main(name: str, seconds: str, target: str) -> None:
    """Attack from a process that has all the files and none of the time that it can get."""
    # Elsewhere an attacker would not take the cores that the server runs on.
    os.setpriority(os.PRIO_PROCESS, 0, 19)
    maximum = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (maximum, maximum))
    asyncio.run(told(name, float(seconds), Target(**json.loads(target))))


async def told(name: str, seconds: float, target: Target) -> None:
    """Attack, and print the tally; the process then ends as a killed one does."""
    print((await attack(name, seconds, target)).to_json(), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
