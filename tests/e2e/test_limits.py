"""Each limit of a server at its smallest: clients keep within it, or are told which one it is."""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import Field, fields
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ntm.v1 import ntm_pb2 as pb
from ntm_client import (
    AsyncClient,
    AsyncSession,
    CapacityExceeded,
    Client,
    InvalidRequest,
    NtmClientError,
    Session,
    SessionExpired,
    Stream,
)
from service.loop import keeper
from service.settings import MIN_CONNECTION_AGE_SECONDS, Settings
from tests.conftest import Serve
from tests.support.ports import free_port
from tests.support.tiny_models import LEDGER

STEPS = 300
INPUTS = np.ones((STEPS, 2), np.float32)
LOCATIONS = 500
TRACES = ["read_weighting", "write_weighting"]
"""4,000 bytes a step, so that 16 steps fill the smallest message."""

LIMITING = {each.name: each for each in fields(Settings) if each.name.startswith("max_")}
TOLD = set(LIMITING) & {each.name for each in pb.Limits.DESCRIPTOR.fields}
"""The settings that clients are told, and keep."""


def smallest(setting: Field[Any]) -> Any:
    """The smallest value that limits anything, and with which the server starts."""
    if setting.name == "max_state_bytes":
        return LEDGER.state_bytes(LEDGER.default_locations)
    if "; 0 for n" not in setting.metadata["help"]:  # no limit, or never
        return setting.metadata["minimum"]
    if setting.name == "max_connection_age_seconds":
        return float(MIN_CONNECTION_AGE_SECONDS)
    return 1 if isinstance(setting.default, int) else 0.001


async def made(call: Callable[..., Any], *arguments: Any, **more: Any) -> Any:
    """The result of a client's method, which is made on a thread if it blocks."""
    if inspect.iscoroutinefunction(call):
        return await call(*arguments, **more)
    return await asyncio.to_thread(call, *arguments, **more)


class Caller:
    """Makes every call of a kind of client, and notes which methods it has called."""

    def __init__(self, setting: str) -> None:
        """`setting` is the one that may refuse."""
        self.setting = setting
        self.refusals: list[NtmClientError] = []
        self.called: set[tuple[type, str]] = set()

    async def call(self, owner: Any, method: str, *arguments: Any, **more: Any) -> Any:
        """The result of a method; None if the server refused it for its limit."""
        self.called.add((type(owner), method))
        try:
            return await made(getattr(owner, method), *arguments, **more)
        except (CapacityExceeded, InvalidRequest, SessionExpired) as refusal:
            is_short = isinstance(refusal, SessionExpired) and "idle_timeout" in self.setting
            if not is_short and refusal.metadata.get("limit") != self.setting:
                raise
            self.refusals.append(refusal)
            return None

    async def client(self, client: Any) -> None:
        """Make every call of a client that is about no open session."""
        models = await self.call(client, "models")
        assert models is None or [model.name for model in models] == ["ledger"]
        await self.call(client, "model", "ledger")
        await self.call(client, "sessions")

    async def session(self, opener: Any, opening: str) -> None:
        """Make every call about a session that this method opens."""
        found = "session"
        locations = {"locations": LOCATIONS}
        session = await self.call(opener, opening, "ledger", **locations)
        if session is None:
            session = await self.call(opener, opening, "ledger")
        await self.call(opener, opening, "ledger", idle_timeout=timedelta(hours=1))
        if session is None:
            return
        await self.call(opener, found, session.id)
        result = await self.call(session, "step", INPUTS, traces=TRACES)
        assert result is None or result.outputs[-1].tolist() == [STEPS, STEPS]
        await self.call(session, "read_memory")
        fork = await self.call(session, "fork")
        saved = await self.call(session, "checkpoint")
        await self.call(session, "reset")
        if saved is not None:
            await self.call(session, "restore", saved)
            other = await self.call(opener, opening, "ledger", checkpoint=saved)
            if other is not None:
                await self.call(other, "delete")
        for each in filter(None, (session, fork)):
            described = await self.call(each, "describe")
            assert described is None or described.next_step == STEPS
            result = await self.call(each, "step", INPUTS)
            assert result is None or result.outputs[-1].tolist() == [2 * STEPS, 2 * STEPS]
            await self.call(each, "delete")

    def is_complete(self, *kinds: type) -> bool:
        """Whether every public method of these was called, but those that belong to the client."""
        own = {
            "close",
            "stream",
            "run",
            "call",
            "call_by",
            "check_open",
            "explained",
            "begin",
            "answer",
        }
        wanted = {
            (kind, name)
            for kind in kinds
            for name, _ in inspect.getmembers(kind, inspect.isfunction)
            if not name.startswith("_") and name not in own
        }
        return wanted == self.called


@asynccontextmanager
async def blocking(address: str, caller: Caller) -> AsyncIterator[tuple[type, ...]]:
    """Make all calls with the blocking client."""
    with Client(address) as client:
        await caller.client(client)
        await caller.session(client, "create_session")
    yield Client, Session


@asynccontextmanager
async def asynchronous(address: str, caller: Caller) -> AsyncIterator[tuple[type, ...]]:
    """Make all calls with the asynchronous client."""
    async with AsyncClient(address) as client:
        await caller.client(client)
        await caller.session(client, "create_session")
    yield AsyncClient, AsyncSession


@asynccontextmanager
async def streamed(address: str, caller: Caller) -> AsyncIterator[tuple[type, ...]]:
    """Make all calls about sessions on a stream."""
    async with AsyncClient(address) as client, client.stream() as stream:
        await caller.session(stream, "open")
    yield Stream, AsyncSession


KINDS = (blocking, asynchronous, streamed)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("setting", LIMITING)
async def test_every_limit_is_kept_or_named(
    serve: Serve, tmp_path: Path, setting: str, kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    With each limit at its smallest, every call of every client works, if clients are told the
    limit. Otherwise it works or is refused with the limit's name.
    """
    monkeypatch.setattr(keeper, "MAX_WAIT_SECONDS", 0.5)  # refusals come after it
    settings: dict[str, Any] = {"store": f"directory:{tmp_path}", "store_sync": "no"}
    settings["max_replay_bytes"] = 4 << 20  # any answer that is lost can be had again
    value = settings[setting] = smallest(LIMITING[setting])
    if "idle_timeout" in setting:
        settings["default_idle_timeout_seconds"] = value
    caller = Caller(setting)
    async with serve(**settings) as running, kind(running.address, caller) as kinds:
        if setting in TOLD:
            assert caller.refusals == []
            assert caller.is_complete(*kinds)


def test_clients_are_told_what_their_chunks_can_break() -> None:
    """The limits that a session states are settings, and the size of replies, which follows."""
    names = {each.name for each in pb.Limits.DESCRIPTOR.fields}
    assert names - TOLD == {"max_reply_bytes"}
    assert {name for name in LIMITING if re.search("steps|message|replay", name)} == TOLD


@pytest.mark.parametrize("setting", sorted(TOLD))
async def test_a_session_goes_on_where_the_limits_are_smaller(
    serve: Serve, tmp_path: Path, setting: str
) -> None:
    """A session whose server comes back with a smaller limit goes on in smaller chunks."""
    shared = {"store": f"directory:{tmp_path}", "store_sync": "no", "port": free_port()}
    smaller = {setting: LIMITING[setting].metadata["minimum"]}
    async with serve(**shared) as first:
        client = AsyncClient(first.address)
        session = await client.create_session("ledger", locations=LOCATIONS)
        await session.step(INPUTS, traces=TRACES)
    async with client, serve(**shared, **smaller) as second:
        result = await session.step(INPUTS, traces=TRACES)
        assert result.array[-1].tolist() == [2 * STEPS, 2 * STEPS]
        assert getattr(session.limits, setting) == smaller[setting]
        refused = second.metric("ntm_errors_total", reason="INVALID_REQUEST")
        assert refused == (setting != "max_replay_bytes"), "it learns from the first refusal"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
async def test_a_checkpoint_too_large_for_a_message_is_named(serve: Serve, kind: Any) -> None:
    """
    A server that takes no such large message is named with its setting, both ways; the session and
    the stream go on.
    """
    async with serve() as large, AsyncClient(large.address) as client:
        session: Any = await client.create_session("ledger", locations=10_000)
        saved = await session.checkpoint()
    too_large = r"larger --max-message-bytes"
    async with serve(max_message_bytes=65_536) as small:
        async with AsyncExitStack() as stack:
            if kind is blocking:
                opener: Any = Client(small.address)
                stack.push_async_callback(made, opener.close)
                opening = opener.create_session
            else:
                client = await stack.enter_async_context(AsyncClient(small.address))
                opener = client
                opening = client.create_session
                if kind is streamed:
                    opener = await stack.enter_async_context(client.stream())
                    opening = opener.open
            session = await made(opening, "ledger", locations=10_000)
            await made(session.step, INPUTS)
            for call, argument in (
                (opening, ("ledger", None, None, saved)),
                (session.restore, (saved,)),
                (session.checkpoint, ()),
                (session.read_memory, ()),
            ):
                with pytest.raises(InvalidRequest, match=too_large):
                    await made(call, *argument)
            result = await made(session.step, INPUTS)
            assert (result.first_step, result.outputs[-1, 0]) == (STEPS, 2 * STEPS)
        assert small.metric("ntm_streams") == 0


async def test_sessions_are_listed_in_pages_that_fit_into_a_message(serve: Serve) -> None:
    """A client gets all sessions, however many fit into a message of the server."""
    async with serve(max_message_bytes=65_536) as running, AsyncClient(running.address) as client:
        async with client.stream() as stream:
            sessions = await asyncio.gather(*(stream.open("ledger") for _ in range(400)))
        listed = await client.sessions()
        assert [each.id for each in listed] == [each.id for each in sessions]
