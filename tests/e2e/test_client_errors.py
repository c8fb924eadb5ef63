"""What both clients say where something went wrong: at a real server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ntm_client import AsyncClient, Client, InvalidArgument, InvalidRequest, TimedOut
from ntm_client.chunks import OwnLimits
from service.engine.sessions import Operation
from tests.conftest import Running, Serve
from tests.e2e.calls import until
from tests.service.rpc.test_stream import Turns
from tests.support.served import MODELS

CHUNK = OwnLimits.chunk_steps


async def made(call: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """What a blocking or an asynchronous call returns."""
    if asyncio.iscoroutinefunction(call):
        return await call(*arguments, **named)
    return await asyncio.to_thread(call, *arguments, **named)


async def check_described(running: Running, session: Any, turns: Turns) -> None:
    """`describe` waits for what has begun, and the session goes on at the step that it says."""
    (here,) = running.server.worker.engine.lifecycle.sessions
    describing = asyncio.create_task(made(session.describe))

    def waits() -> bool:
        return any(isinstance(work, Operation) for work in here.waiting)

    await until(lambda: describing.done() or waits())
    turns.left = 1 << 30
    described = await describing

    # A busy machine may not have begun the first chunk in time; then it is dropped.
    assert described.next_step in (0, CHUNK)
    assert session.next_step == described.next_step
    result = await made(session.step, np.ones((2, 2)))
    assert result.first_step == described.next_step
    assert result.outputs[-1].tolist() == [described.next_step + 2] * 2


@pytest.fixture(params=[Client, AsyncClient])
def kind(request: pytest.FixtureRequest) -> Any:
    """Each kind of client."""
    return request.param


async def test_a_session_is_described_after_a_step_that_took_too_long(
    running: Running, monkeypatch: pytest.MonkeyPatch, kind: Any
) -> None:
    """The chunk that has begun runs on, and those behind it are dropped."""
    client = kind(running.address, resume=None)
    session = await made(client.create_session, "ledger")
    turns = Turns(running, monkeypatch)
    turns.left = 1
    with pytest.raises(TimedOut):
        await made(session.step, np.ones((3 * CHUNK, 2)), timeout_seconds=0.5)
    await check_described(running, session, turns)
    await made(client.close)


async def test_a_session_is_described_after_a_step_that_was_cancelled(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after one that took too long."""
    async with AsyncClient(running.address, resume=None) as client:
        session = await client.create_session("ledger")
        turns = Turns(running, monkeypatch)
        turns.left = 1
        stepping = asyncio.create_task(session.step(np.ones((3 * CHUNK, 2))))
        await until(lambda: not turns.left)
        stepping.cancel()
        await asyncio.wait({stepping})
        await check_described(running, session, turns)


@pytest.mark.parametrize("wrong", [0, 7, CHUNK, 2 * CHUNK + 7])
async def test_a_value_that_is_refused_is_named_as_in_the_inputs(
    running: Running, kind: Any, wrong: int
) -> None:
    """By its step in what the user gave, whatever chunks it was sent in."""
    client = kind(running.address)
    session = await made(client.create_session, "ledger")
    await made(session.step, np.ones((5, 2)))
    inputs = np.ones((3 * CHUNK, 2))
    inputs[wrong, 1] = 2e6
    with pytest.raises(InvalidRequest) as raised:
        await made(session.step, inputs)
    await made(client.close)

    assert str(raised.value) == (
        f"input 2000000.0 at step {wrong} of the inputs, channel 1: values must be finite, of "
        "magnitude at most 1e+06"
    )
    assert raised.value.metadata == {"step": str(wrong), "channel": "1"}
    assert session.next_step == 5 + wrong // CHUNK * CHUNK


async def test_no_locations_are_refused_for_a_model_with_memory(
    running: Running, kind: Any
) -> None:
    """The server would take them for none that are chosen; no session is opened."""
    client = kind(running.address)
    refusal = r"locations must be a whole number from 1 to 4294967295, not 0"
    with pytest.raises(InvalidArgument, match=refusal):
        await made(client.create_session, "ledger", 0)
    assert await made(client.sessions) == []
    await made(client.close)


async def test_a_model_without_memory_has_no_locations(serve: Serve, kind: Any) -> None:
    """So a session can be opened with the locations of another one."""
    async with serve(models_dir=MODELS, models="copy-lstm") as running:
        client = kind(running.address)
        first = await made(client.create_session, "copy-lstm")
        second = await made(client.create_session, "copy-lstm", first.locations)
        with pytest.raises(InvalidRequest, match="this model has no memory; leave it 0"):
            await made(client.create_session, "copy-lstm", 1)
        await made(client.close)

    assert first.locations == second.locations == 0
