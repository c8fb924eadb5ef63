"""A session for asyncio, whose calls are made one by one or together on a stream."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Protocol, Self, TypeVar

import numpy.typing as npt
from google.protobuf.message import Message

from ntm_client import arguments, procedures
from ntm_client.chunks import OwnLimits
from ntm_client.errors import NotStored, NtmClientError, SessionGone
from ntm_client.fencing import fenced
from ntm_client.procedures import Attempt, BaseSession, Procedure
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


async def run(caller: Caller, procedure: Procedure[T], timeout_seconds: float | None = None) -> T:
    """Make the calls that a procedure asks for, each within the timeout, and return its result."""
    seconds = caller.timeout_seconds
    if timeout_seconds is not None:
        seconds = arguments.call_seconds("timeout_seconds", timeout_seconds)
    try:
        wanted = next(procedure)
        while True:
            try:
                response = await _attempt(caller, wanted, seconds)
            except NtmClientError as error:
                wanted = procedure.throw(error)
            else:
                wanted = procedure.send(response)
    except StopIteration as returned:
        result: T = returned.value
        return result


async def _attempt(caller: Caller, wanted: Message | Attempt, seconds: float) -> Message:
    if isinstance(wanted, Attempt):
        await asyncio.sleep(wanted.delay_seconds)
        return await caller.call(wanted.request, min(seconds, wanted.max_seconds))
    return await caller.call(wanted, seconds)


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
        inputs: npt.ArrayLike,
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
            return await run(self._caller, stepping, timeout_seconds)

    async def reset(self) -> None:
        """Set the session back to the model's initial state, at step 0."""
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
        """The session as the server has it; sets `next_step` to the server's."""
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
