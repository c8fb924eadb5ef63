"""Chunks of a session that are sent before they are asked for."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, Generic, Protocol, TypeVar

from ntm.v1 import ntm_pb2 as pb
from ntm_client.errors import NtmClientError
from ntm_client.procedures import BaseSession


class Stream(Protocol):
    """One StreamSteps call, blocking or asynchronous."""

    broken: NtmClientError | None

    def cancel(self, pending: Any) -> None:
        """Give an operation up."""


class Pending(Protocol):
    """An operation that has no outcome yet."""

    @property
    def stream(self) -> Stream:
        """The call that carries it."""


P = TypeVar("P", bound=Pending)
Q = TypeVar("Q", bound=Pending, covariant=True)


class Beginner(Protocol[Q]):
    """A client or a stream, as far as it sends chunks without waiting for them."""

    def begin(self, session: BaseSession, request: pb.StepRequest) -> Q | None:
        """Send a chunk of the session on a stream; None if it has to be a call."""


class SentAhead(Generic[P]):
    """What one procedure has sent and not asked for yet, in order and on one stream."""

    def __init__(self, beginner: Beginner[P]) -> None:
        """Send through `beginner`."""
        self._beginner = beginner
        self._sent: deque[tuple[pb.StepRequest, P]] = deque()

    def send(self, session: BaseSession, requests: Sequence[pb.StepRequest]) -> None:
        """Send those of the chunks, which are asked for next, that are not sent yet."""
        sent = self._sent
        if sent and sent[0][0] is not requests[0]:
            self.give_up()
        for request in requests[len(sent) :]:
            if sent and sent[-1][1].stream.broken is not None:
                return  # what is on another stream could overtake what is on this one
            pending = self._beginner.begin(session, request)
            if pending is None:
                return
            if sent and pending.stream is not sent[-1][1].stream:
                pending.stream.cancel(pending)
                return
            sent.append((request, pending))

    def take(self, request: pb.StepRequest) -> P | None:
        """The operation of a chunk that is asked for; None if it was not sent ahead."""
        if self._sent and self._sent[0][0] is request:
            return self._sent.popleft()[1]
        self.give_up()
        return None

    def give_up(self) -> None:
        """Cancel what was sent: it is not asked for any more, or is sent again later."""
        while self._sent:
            _, pending = self._sent.popleft()
            pending.stream.cancel(pending)
