"""A session for asyncio, whose calls are made one by one or together on a stream."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Protocol, Self, TypeVar

from google.protobuf.message import Message

from ntm.v1 import ntm_pb2 as pb
from ntm_client import arguments, procedures
from ntm_client.ahead import SentAhead
from ntm_client.async_operations import AsyncPending
from ntm_client.chunks import OwnLimits
from ntm_client.conversion import Inputs
from ntm_client.errors import NotStored, NtmClientError, SessionGone
from ntm_client.fencing import fenced
from ntm_client.procedures import Ahead, Attempt, BaseSession, Procedure
from ntm_client.recovery import Recovery
from ntm_client.retries import Retries
from ntm_client.values import Memory, Model, SessionInfo, StepResult

T = TypeVar("T")


class Caller(Protocol):
    """Carries requests to the server: a client's connection, or a stream."""

    own_limits: OwnLimits
    retries: Retries | None
    timeout_seconds: float

    async def call(self, request: Message, timeout_seconds: float) -> Message:
        """Make one call, and return the response of the type that belongs to the request."""

    def begin(self, session: BaseSession, request: pb.StepRequest) -> AsyncPending | None:
        """Send a chunk of the session on a stream, without waiting; None if it has to be a call."""

    async def answer(
        self, pending: AsyncPending, request: pb.StepRequest, timeout_seconds: float
    ) -> Message:
        """Wait for the response to a chunk that was sent on a stream."""

    async def explained(self, error: NtmClientError) -> NtmClientError:
        """What `Connection.explained` returns."""


async def run(
    caller: Caller,
    procedure: Procedure[T],
    timeout_seconds: float | None = None,
    session: BaseSession | None = None,
) -> T:
    """
    Make the calls that a procedure asks for, each within the timeout, and return its result.

    Chunks of `session` go on a stream where there is one, and those that the procedure names in
    advance are sent in advance.
    """
    seconds = caller.timeout_seconds
    if timeout_seconds is not None:
        seconds = arguments.call_seconds("timeout_seconds", timeout_seconds)
    carrier = _Carrier(caller, session, seconds)
    try:
        wanted = next(procedure)
        while True:
            try:
                response = await carrier.carry(wanted)
            except NtmClientError as error:
                wanted = procedure.throw(error)
            else:
                wanted = procedure.send(response)
    except StopIteration as returned:
        result: T = returned.value
        return result
    except NtmClientError as error:
        found = await caller.explained(error)
        raise found from found.__cause__
    finally:
        carrier.end()


class _Carrier:
    """Carries the requests of one procedure, and has those that were sent ahead."""

    def __init__(self, caller: Caller, session: BaseSession | None, seconds: float) -> None:
        self._caller = caller
        self._session = session
        self._seconds = seconds
        self._ahead: SentAhead[AsyncPending] = SentAhead(caller)

    async def carry(self, wanted: Message | Attempt | Ahead) -> Message | None:
        caller, seconds = self._caller, self._seconds
        match wanted:
            case Ahead():
                assert self._session is not None, "only the procedures of a session send ahead"
                self._ahead.send(self._session, wanted.requests)
                return None
            case Attempt():
                # After a failure the session may be anywhere: a call finds it by its own route.
                self._ahead.give_up()
                await asyncio.sleep(wanted.delay_seconds)
                return await caller.call(wanted.request, min(seconds, wanted.max_seconds))
            case pb.StepRequest() if self._session is not None:
                pending = self._ahead.take(wanted) or caller.begin(self._session, wanted)
                if pending is not None:
                    return await caller.answer(pending, wanted, seconds)
                self._session.routed_seconds = time.monotonic()
        return await caller.call(wanted, seconds)

    def end(self) -> None:
        """Give up what was sent ahead and not asked for."""
        self._ahead.give_up()


class AsyncSession(BaseSession):
    """One sequence in progress on the server. Made by a client's or a stream's methods."""

    def __init__(self, caller: Caller, model: Model, info: SessionInfo) -> None:
        super().__init__(model, info)
        self._caller = caller
        self._ask_once = partial(fenced, self)
        self._ask = (
            Recovery(self, caller.retries, caller.own_limits).ask
            if caller.retries
            else self._ask_once
        )
        self._lock = asyncio.Lock()

    async def step(
        self,
        inputs: Inputs,
        traces: Sequence[str] = (),
        top_k: int = 0,
        *,
        timeout_seconds: float | None = None,
    ) -> StepResult:
        """
        Make steps as `Session.step` does. If the task is cancelled meanwhile, steps may have been
        made; `describe` shows how many.
        """
        async with self._lock:
            own = self._caller.own_limits
            stepping = procedures.step(self._ask, self, inputs, traces, top_k, own)
            return await run(self._caller, stepping, timeout_seconds, self)

    async def reset(self) -> None:
        """Set the session back to the state that it was opened with, at step 0."""
        async with self._lock:
            await run(self._caller, procedures.reset(self._ask, self))

    async def checkpoint(self) -> bytes:
        """The session's state at its next step, as `Session.checkpoint` returns it."""
        async with self._lock:
            return await run(self._caller, procedures.checkpoint(self._ask, self))

    async def restore(self, checkpoint: bytes) -> None:
        """Set the session to the state and the step of a checkpoint."""
        async with self._lock:
            await run(self._caller, procedures.restore(self._ask, self, checkpoint))

    async def fork(self) -> AsyncSession:
        """Open a session with the state of this one, which goes on independently."""
        async with self._lock:
            info = await run(self._caller, procedures.fork(self._ask, self))
        return AsyncSession(self._caller, self.model, info)

    async def describe(self) -> SessionInfo:
        """
        The session as the server has it, once it has ended the steps that it has begun; sets
        `next_step` to the server's.
        """
        async with self._lock:
            return await run(self._caller, procedures.describe(self._ask, self))

    async def read_memory(self) -> Memory:
        """The memory and the weightings as they are after the last step."""
        async with self._lock:
            return await run(self._caller, procedures.read_memory(self._ask, self))

    async def delete(self) -> None:
        """Close the session; the server frees its state."""
        await run(self._caller, procedures.delete(self._ask, self))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exception is None:
            # Where the store does not answer, the server goes on asking it.
            with suppress(SessionGone, NotStored):
                await self.delete()
            return
        # The error inside the block says more than an error of deleting the session. See `Session`.
        with suppress(NtmClientError):
            await run(self._caller, procedures.delete(self._ask_once, self))
