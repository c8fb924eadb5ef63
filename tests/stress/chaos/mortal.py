"""A client in a process of its own, which is killed in the middle; others continue its sessions."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import numpy as np

from ntm_client import AsyncClient
from ntm_client.errors import NtmClientError
from tests.stress.chaos.expected import STEPS
from tests.stress.chaos.walks import lost, opened, settled, stepped_on, taken_over
from tests.stress.chaos.world import RESUME, TIMEOUT_SECONDS, Unary, World

_LIFE_SECONDS = (0.1, 1.5)
_STEPS_AT_ONCE = 4


async def killed(world: World, name: str) -> None:
    """Open sessions, have a process step each on a stream, kill it, and go on here."""
    chance = world.chance(name)
    async with world.asynchronous((await world.way()).target) as client:
        while found := await opened(world, Unary(client), chance):
            expected, session = found
            inputs = [row.tolist() for row in expected.inputs[:STEPS]]
            durable = session.durable_step
            try:
                async for first, told, outputs in _told(
                    (await world.way()).target, session.id, inputs, chance.uniform(*_LIFE_SECONDS)
                ):
                    values = np.array(outputs, np.float32)
                    world.tally.compare(expected, first, values, f"{name}, before it was killed")
                    durable = told
                world.tally.faults["client killed"] += 1
                session = await taken_over(world, Unary(client), expected, session.id, durable)
                while session.next_step < STEPS and not world.is_over:
                    durable = await stepped_on(world, expected, session, chance, durable, name)
                await settled(world, expected, session, chance, durable, name)
            except (NtmClientError, AssertionError) as error:
                lost(world, expected, session, error, name)


async def _told(
    target: str, session_id: str, inputs: list[list[float]], seconds: float
) -> AsyncIterator[tuple[int, int, list[list[float]]]]:
    """First step, durable step and outputs of each answer to a process that lives so long."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.stress.chaos.mortal", target, session_id),
        cwd=Path(__file__).parents[3],
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=2**20,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(inputs).encode() + b"\n")
    timer: asyncio.TimerHandle | None = None
    try:
        while (line := await process.stdout.readline()).endswith(b"\n"):
            if timer is None:
                timer = asyncio.get_running_loop().call_later(seconds, process.kill)
            yield json.loads(line)
    finally:
        if timer is not None:
            timer.cancel()
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
        await process.wait()


async def main(target: str, session_id: str) -> None:
    """Step a session with the inputs of standard input, and print what is answered."""
    inputs = np.array(json.loads(sys.stdin.readline()), np.float32)
    async with (
        AsyncClient(target, timeout_seconds=TIMEOUT_SECONDS, resume=RESUME) as client,
        client.stream() as stream,
    ):
        assert client.retries is not None
        client.retries.reached = True  # as for `WatchedRetries`
        session = await stream.session(session_id)
        while session.next_step < len(inputs):
            first = session.next_step
            result = await session.step(inputs[first : first + _STEPS_AT_ONCE])
            print(json.dumps([first, session.durable_step, result.array.tolist()]), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
