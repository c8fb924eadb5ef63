"""Sequences of the protocol: each is a session, whose id is derived from the sequence's."""

from __future__ import annotations

import asyncio
import hashlib
import json
from functools import lru_cache, partial

from ntm.v1 import ntm_pb2
from service.auth.principal import Principal
from service.engine.work import Chunk, Selection
from service.errors import (
    InvalidRequest,
    NtmError,
    SessionDeleted,
    SessionExpired,
    SessionMoved,
    SessionUnknown,
)
from service.models.version import Version
from service.rpc.calls import Calls
from service.rpc.inference.requests import Asked
from service.session_ref import SessionRef

SERVICE = "inference.GRPCInferenceService"

MAX_SESSION_IDS = 65_536
"""The number of ids that are kept, since each is needed at every step."""

_WHY: dict[type[NtmError], str] = {
    SessionUnknown: "there is no such sequence here",
    SessionDeleted: "the sequence has ended",
    SessionExpired: "the sequence had no request for its idle timeout",
}


def session_id(model: str, sequence: int | str, principal: Principal) -> str:
    """
    The id of a sequence's session.

    Ids of sequences are short and can be guessed. So the session's id depends on who asks: with
    authentication, equal ids of two principals are two sequences. Without, everybody who names a
    sequence means the same one, as with Triton.
    """
    return _session_id(model, sequence, principal.name if principal.is_authenticated else None)


@lru_cache(MAX_SESSION_IDS)
def _session_id(model: str, sequence: int | str, owner: str | None) -> str:
    name = json.dumps([SERVICE, owner, model, sequence])
    return hashlib.sha256(name.encode()).hexdigest()[:32]


class Sequences:
    """
    Makes the steps of sequences in the order in which their requests came.

    The engine keeps the order of a session's chunks. The start of a sequence and its end are
    several operations, so that what comes after one of them waits until it is done.
    """

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._last: dict[str, asyncio.Task[Chunk]] = {}
        """By session, the last request that others have to wait for."""

    def at_once(self, session: str, asked: Asked, principal: Principal) -> Chunk | None:
        """
        The chunk of a request that can be submitted now; None for one that has to go `in_turn`.
        """
        if asked.is_start or asked.is_end or session in self._last:
            return None
        return _chunk(asked, SessionRef(session, principal.caller, asked.epoch))

    def in_turn(
        self, session: str, asked: Asked, version: Version, principal: Principal
    ) -> asyncio.Task[Chunk]:
        """
        Make the steps of a request after those of the sequence's earlier requests; the result is
        the chunk with its outcome. A sequence that starts is on that version.
        """
        made = self._made(self._last.get(session), session, asked, version, principal)
        task = self._last[session] = asyncio.create_task(made)
        task.add_done_callback(partial(self._ended, session))
        return task

    def _ended(self, session: str, task: asyncio.Task[Chunk]) -> None:
        if self._last.get(session) is task:
            del self._last[session]

    async def _made(
        self,
        before: asyncio.Task[Chunk] | None,
        session: str,
        asked: Asked,
        version: Version,
        principal: Principal,
    ) -> Chunk:
        if before is not None:
            await asyncio.wait([before])
        ref = SessionRef(session, principal.caller, asked.epoch)
        if asked.is_start:
            request = ntm_pb2.CreateSessionRequest(
                model=asked.model,
                content_hash=version.content_hash,
                session_id=session,
                locations=asked.locations,
                initial=[
                    ntm_pb2.TensorValue(name=name, data=data)
                    for name, data in asked.initial.items()
                ],
            )
            await self._calls.open_again(request, principal)
            ref = ref._replace(epoch=0)  # that of the sequence before
        chunk = _chunk(asked, ref)
        try:
            await self._calls.made(chunk)
        except SessionMoved:  # this replica's copy was old; now it claims the session
            chunk = _chunk(asked, ref)
            await self._calls.made(chunk)
        if asked.is_end:
            await self._calls.delete(ref)
        return chunk


def refusal(error: BaseException, asked: Asked) -> BaseException:
    """An error in the words of the protocol, as far as clients of Triton know it."""
    why = _WHY.get(type(error)) if isinstance(error, NtmError) else None
    if why is None:
        return error
    sequence = repr(asked.sequence) if isinstance(asked.sequence, str) else asked.sequence
    return InvalidRequest(
        f"inference request for sequence {sequence} to model {asked.model!r} must specify the "
        f"START flag on the first request of the sequence: {why}"
    )


def _chunk(asked: Asked, ref: SessionRef) -> Chunk:
    return Chunk(ref, asked.inputs, asked.first_step, Selection(asked.traces))
