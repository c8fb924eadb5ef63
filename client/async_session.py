"""A session for tasks, whichever way its calls travel: one by one, or together on a stream."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import Protocol, Self, TypeVar

import numpy.typing as npt
from google.protobuf.message import Message

from client import procedures
from client.chunks import Limits
from client.errors import NtmClientError, SessionGone
from client.procedures import Procedure, SessionRecord
from client.records import Memory, Model, SessionInfo, StepResult

T = TypeVar("T")


class Caller(Protocol):
    """Carries requests to the server: a client's connection, or a stream."""

    limits: Limits

    async def call(self, request: Message, timeout_seconds: float | None = None) -> Message:
        """The response, of the type that belongs to the request."""


async def run(caller: Caller, procedure: Procedure[T], timeout_seconds: float | None = None) -> T:
    """Make the calls that a procedure asks for, each within the timeout; its result."""
    try:
        request = next(procedure)
        while True:
            request = procedure.send(await caller.call(request, timeout_seconds))
    except StopIteration as returned:
        result: T = returned.value
        return result


class AsyncSession(SessionRecord):
    """One sequence in progress on the server. Made by a client's or a stream's methods."""

    def __init__(self, caller: Caller, model: Model, info: SessionInfo) -> None:
        """The session that `info` describes, stepped through that caller."""
        super().__init__(model, info)
        self._caller = caller
        self._lock = asyncio.Lock()

    async def step(
        self,
        inputs: npt.ArrayLike,
        traces: Sequence[str] = (),
        top_k: int = 0,
        *,
        timeout_seconds: float | None = None,
    ) -> StepResult:
        """As `Session.step`. A task cancelled here may have made steps: `describe` tells."""
        async with self._lock:
            stepping = procedures.step(self, inputs, traces, top_k, self._caller.limits)
            return await run(self._caller, stepping, timeout_seconds)

    async def reset(self) -> None:
        """Set the session back to the model's initial state, at step 0."""
        async with self._lock:
            await run(self._caller, procedures.reset(self))

    async def checkpoint(self) -> bytes:
        """As `Session.checkpoint`."""
        async with self._lock:
            return await run(self._caller, procedures.checkpoint(self))

    async def restore(self, checkpoint: bytes) -> None:
        """As `Session.restore`."""
        async with self._lock:
            await run(self._caller, procedures.restore(self, checkpoint))

    async def fork(self) -> AsyncSession:
        """As `Session.fork`."""
        async with self._lock:
            info = await run(self._caller, procedures.fork(self))
        return AsyncSession(self._caller, self.model, info)

    async def describe(self) -> SessionInfo:
        """The session as the server has it; sets `next_step` to the server's."""
        async with self._lock:
            return await run(self._caller, procedures.describe(self))

    async def read_memory(self) -> Memory:
        """The memory and the weightings as they are after the last step."""
        return await run(self._caller, procedures.read_memory(self))

    async def delete(self) -> None:
        """Close the session; the server frees its state."""
        await run(self._caller, procedures.delete(self))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await self.delete()
        except SessionGone:
            pass
        except NtmClientError:
            # What went wrong inside the block says more than that it could not be tidied up.
            if exception is None:
                raise
