"""
The load of the client library, `python -m bench.client_load`: programs as users write them.

They use the client's public methods alone, give them arrays and use the results. The process reads
work and writes results as lines of JSON, as `bench.load` does.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from bench.quantiles import quantiles
from ntm_client import AsyncClient, AsyncSession, Client, Session, StepResult

MODEL = "copy-ntm-lstm"
INPUT_WIDTH, BITS = 9, 8
"""A step of the copy task has eight random bits and a delimiter."""

VECTORS = 64
"""The different vectors that single steps take in turn."""

WARM_UP_SECONDS = 0.5
WARM_UP_STEPS = 512

SESSION_STEPS = 10
"""Steps of a session that is opened, stepped and closed, one step after the other."""


class Count:
    """Counts the steps that are made after the warm-up, by any thread or task, until the end."""

    def __init__(self, seconds: float) -> None:
        """Begin the warm-up, which `seconds` of counting follow."""
        self._start = time.perf_counter() + WARM_UP_SECONDS
        self._end = self._start + seconds
        self._made: list[int] = []  # appending is safe in threads, adding is not

    def goes_on(self) -> bool:
        """Whether to make another step."""
        return time.perf_counter() < self._end

    def add(self, result: StepResult) -> None:
        """Count the steps of a result. Raises RuntimeError if one of its outputs is no number."""
        _use(result)
        if time.perf_counter() > self._start:
            self._made.append(np.asarray(result.outputs).size // BITS)

    def measured(self) -> dict[str, float]:
        """What was counted, for each second until now."""
        return {"steps/s": sum(self._made) / (time.perf_counter() - self._start)}


def step(address: str, count: int) -> dict[str, float]:
    """Measure the time of single steps of one blocking session."""
    vectors, times = _random_bits(VECTORS), []
    with Client(address) as client, client.create_session(MODEL) as session:
        for number in range(count + count // 4):
            started = time.perf_counter()
            _use(session.step(vectors[number % VECTORS]))
            times.append(time.perf_counter() - started)
    counted = times[count // 4 :]
    return {**quantiles(counted), "steps/s": count / sum(counted)}


def tasks(address: str, sessions: int, seconds: float) -> dict[str, float]:
    """Measure the throughput of sessions of one asyncio client, a step at a time, a task each."""

    async def stepped() -> dict[str, float]:
        async with AsyncClient(address) as client:
            opened = [await client.create_session(MODEL) for _ in range(sessions)]
            return await _stepped_by_tasks(opened, 1, seconds)

    return asyncio.run(stepped())


def stream(address: str, sessions: int, steps: int, seconds: float) -> dict[str, float]:
    """Measure the throughput of sessions on the client's stream, in chunks, a task each."""

    async def stepped() -> dict[str, float]:
        async with AsyncClient(address) as client, client.stream() as opened_on:
            opened = [await opened_on.open(MODEL) for _ in range(sessions)]
            return await _stepped_by_tasks(opened, steps, seconds)

    return asyncio.run(stepped())


def threads(address: str, sessions: int, seconds: float) -> dict[str, float]:
    """Measure the throughput of sessions of a blocking client, a step at a time, a thread each."""
    vectors = _random_bits(VECTORS)
    with Client(address) as client, ThreadPoolExecutor(sessions) as pool:
        opened = [client.create_session(MODEL) for _ in range(sessions)]
        count = Count(seconds)

        def stepped(session: Session) -> None:
            number = 0
            while count.goes_on():
                count.add(session.step(vectors[number % VECTORS]))
                number += 1

        for done in [pool.submit(stepped, session) for session in opened]:
            done.result()
        measured = count.measured()
        for session in opened:
            session.delete()
    return measured


def long(address: str, steps: int) -> dict[str, float]:
    """Measure the throughput of many steps of one blocking session in one call."""
    inputs = _random_bits(steps)
    with Client(address) as client, client.create_session(MODEL) as session:
        _use(session.step(inputs[:WARM_UP_STEPS]))
        started = time.perf_counter()
        result = session.step(inputs)
        _use(result)
        seconds = time.perf_counter() - started
    return {"steps/s": len(result.outputs) / seconds}


def short(address: str, count: int) -> dict[str, float]:
    """Measure how many sessions a second are opened, stepped ten times and closed."""
    vectors = _random_bits(SESSION_STEPS)
    with Client(address) as client:
        for number in range(count + count // 4):
            if number == count // 4:
                started = time.perf_counter()
            with client.create_session(MODEL) as session:
                for vector in vectors:
                    _use(session.step(vector))
        seconds = time.perf_counter() - started
    return {"sessions/s": count / seconds, "steps/s": SESSION_STEPS * count / seconds}


async def _stepped_by_tasks(
    sessions: list[AsyncSession], steps: int, seconds: float
) -> dict[str, float]:
    """Step each session in a task of its own until the time is over, and delete it."""
    inputs = _random_bits(VECTORS * steps).reshape(VECTORS, steps, INPUT_WIDTH)
    if steps == 1:
        inputs = inputs[:, 0]
    count = Count(seconds)

    async def stepped(session: AsyncSession) -> None:
        number = 0
        while count.goes_on():
            count.add(await session.step(inputs[number % VECTORS]))
            number += 1

    await asyncio.gather(*map(stepped, sessions))
    measured = count.measured()
    await asyncio.gather(*(session.delete() for session in sessions))
    return measured


def _random_bits(steps: int) -> npt.NDArray[np.float64]:
    """Return vectors of the copy task, [steps, width], as numpy makes them: in float64."""
    inputs = np.zeros((steps, INPUT_WIDTH))
    inputs[:, :BITS] = np.random.default_rng(0).integers(0, 2, (steps, BITS))
    return inputs


def _use(result: StepResult) -> None:
    """Use a result, as its user does. Raises RuntimeError if an output is no number."""
    if not np.isfinite(np.asarray(result.outputs)).all():
        raise RuntimeError(f"outputs are no numbers from step {result.first_step}")


WORK: dict[str, Callable[..., dict[str, float]]] = {
    work.__name__: work for work in (step, tasks, stream, threads, long, short)
}


def _main() -> None:
    while line := sys.stdin.readline():
        asked = json.loads(line)
        measured = WORK[asked.pop("work")](**asked)
        print(json.dumps(measured), flush=True)


if __name__ == "__main__":
    _main()
