"""One attack, or several together, on a fresh server: before, during and after."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.stress.flood.calls import MODEL
from tests.stress.flood.tally import Tally
from tests.stress.flood.victim import STEPS_PER_SECOND, Latencies, Newcomers, Victim
from tests.stress.flood.watched import Watched, watched

_SETTLING_SECONDS = 15.0
"""How long connections of a dead attacker may stay open."""


@dataclass
class Trial:
    """What came of one attack."""

    tallies: dict[str, Tally]
    before: Sequence[float]
    """Latencies in seconds, in order of size; as `during` and `after`."""
    during: Sequence[float]
    after: Sequence[float]
    wrong: int
    newcomers: Newcomers
    resident_bytes: tuple[int, int, int]
    """Before, at most, and after."""
    state_bytes: int
    """Of the sessions that were open at the end of the attack; the attackers' among them."""
    open_files: tuple[int, int, int]
    """Before, while attacked, and after."""
    counted: dict[str, float]
    """Refusals that the server counted, by reason."""
    cpu_share: float
    """Of a core, taken by the server while attacked."""


async def trial(names: Sequence[str], seconds: float, calm_seconds: float, log: Path) -> Trial:
    """Attack for so many seconds, between two calms."""
    with watched(log, f"--models={MODEL}") as server:
        steps = int(STEPS_PER_SECOND * (seconds + 2 * calm_seconds))
        victim, latencies, newcomers = Victim(server.target, steps), Latencies(), Newcomers()
        await victim.learn()
        resident, files, counted = server.resident_bytes, server.open_files, server.errors()
        running = asyncio.create_task(victim.run(latencies))
        coming = asyncio.create_task(newcomers.run(server.target))
        await asyncio.sleep(calm_seconds)
        cpu = server.cpu_seconds
        watching = asyncio.create_task(_seen(server, seconds))
        tallies = await asyncio.gather(*(_attack(name, seconds, server) for name in names))
        max_files = await watching
        state_bytes = server.state_bytes()
        cpu_share = (server.cpu_seconds - cpu) / seconds
        await running
        coming.cancel()
        with suppress(asyncio.CancelledError):
            await coming
        await _settled(server, files)
        more = {reason: count - counted.get(reason, 0) for reason, count in server.errors().items()}
        end = calm_seconds + seconds
        return Trial(
            dict(zip(names, tallies, strict=True)),
            latencies.between(0, calm_seconds),
            latencies.between(calm_seconds, end),
            # A second for what is still under way.
            latencies.between(end + 1, end + calm_seconds),
            latencies.wrong,
            newcomers,
            (resident, server.peak_bytes, server.resident_bytes),
            state_bytes,
            (files, max_files, server.open_files),
            more,
            cpu_share,
        )


async def _attack(name: str, seconds: float, server: Watched) -> Tally:
    """Attack from another process."""
    arguments = [name, str(seconds), json.dumps(vars(server.target))]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.stress.flood.attack", *arguments),
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    return Tally.from_json(output.decode()) if output else Tally()


async def _seen(server: Watched, seconds: float) -> int:
    """The most files that were open in so many seconds, looked at ten times a second."""
    maximum = 0
    for _ in range(int(10 * seconds)):
        maximum = max(maximum, server.open_files)
        await asyncio.sleep(0.1)
    return maximum


async def _settled(server: Watched, files: int) -> None:
    """Wait until the server has closed what the attackers left, or long enough."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_SETTLING_SECONDS):
            while server.open_files > files:  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.1)
