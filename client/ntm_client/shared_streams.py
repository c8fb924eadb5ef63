"""The streams that the sessions of one client share, one for each replica that they are on."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from ntm_client.connection import Authorization, route
from ntm_client.errors import NtmClientError
from ntm_client.procedures import BaseSession

NEXT_SECONDS = 10.0
"""
The time between the beginnings of two streams where the first was never answered, as behind a proxy
that knows only calls, or where the token is another one already, as it may be for each call.
Meanwhile there are calls.
"""

ROUTE_SECONDS = 300.0
"""
After this time a session's next chunk is a call, so that a balancer can bring the session back to
the replica that it chooses for it, such as one that was restarted.
"""

Metadata = tuple[tuple[str, str], ...]


class Stream(Protocol):
    """One StreamSteps call, blocking or asynchronous."""

    broken: NtmClientError | None
    replica: str

    def end(self) -> None:
        """End the call once everything that was begun is answered."""


S = TypeVar("S", bound=Stream)


@dataclass
class _Shared(Generic[S]):
    stream: S
    credentials: Metadata
    first: str
    """The id of the session that load balancers see."""
    began: float
    """By the monotonic clock."""

    def leads_to(self, replica: str, credentials: Metadata) -> bool:
        """Whether the stream leads to a replica for the caller, as far as is known."""
        is_there = self.stream.replica in ("", replica)
        return self.stream.broken is None and is_there and credentials == self.credentials

    def is_kept_for(self, credentials: Metadata) -> bool:
        """Whether a stream that does not lead there is not replaced yet."""
        is_odd = not self.stream.replica or credentials != self.credentials
        return is_odd and time.monotonic() < self.began + NEXT_SECONDS


class SharedStreams(Generic[S]):
    """
    Finds the stream on which a session is stepped.

    Servers name themselves in their answers. Sessions that the same replica answered share a
    stream. It is routed like a call of the first of them, and the others join once the replica has
    answered on it, so that no balancer brings a session to a replica that does not have it.
    """

    def __init__(self, begin: Callable[[Metadata], S], authorization: Authorization) -> None:
        """`begin` begins a stream with this metadata."""
        self._begin = begin
        self._authorization = authorization
        self._shared: dict[str, _Shared[S]] = {}
        self._lock = threading.Lock()
        self._process = os.getpid()

    @property
    def is_of_parent(self) -> bool:
        """
        Whether this process was forked from the one that has the streams. The threads that serve
        the channel's streams, and may hold the lock, are there.
        """
        return self._process != os.getpid()

    def of(self, session: BaseSession) -> S | None:
        """
        The stream for a session's next chunk; None if it has to be a call, which then says where
        the session is.

        Raises TokenNotSent as a call does.
        """
        replica = session.replica
        if not replica or time.monotonic() > session.routed_seconds + ROUTE_SECONDS:
            return None
        if self.is_of_parent:
            return None  # a call needs no threads
        credentials = self._authorization.metadata()
        shared = self._shared.get(replica)
        if shared is None or not shared.leads_to(replica, credentials):
            shared = self._begun(session, replica, credentials)
        if shared is not None and (shared.stream.replica or shared.first == session.id):
            return shared.stream
        return None

    def _begun(
        self, session: BaseSession, replica: str, credentials: Metadata
    ) -> _Shared[S] | None:
        """The stream to a replica, begun if there is none; None if none may begin yet."""
        with self._lock:
            shared = self._shared.get(replica)
            if shared is not None:
                if shared.leads_to(replica, credentials):
                    return shared  # another thread has begun it
                if shared.is_kept_for(credentials):
                    return None
                self._make_way(replica, shared)
            stream = self._begin((*credentials, *route(session.id)))
            shared = _Shared(stream, credentials, session.id, time.monotonic())
            self._shared[replica] = shared
            return shared

    def leave(self, stream: S) -> None:
        """Begin no chunk on this stream any more."""
        with self._lock:
            for replica, shared in list(self._shared.items()):
                if shared.stream is stream and stream.replica:
                    del self._shared[replica]
        stream.end()

    def end(self) -> None:
        """End all streams once everything that was begun is answered."""
        for stream in self.take_all():
            stream.end()

    def take_all(self) -> list[S]:
        """All streams of this process, which are forgotten here."""
        if self.is_of_parent:
            return []
        with self._lock:
            taken, self._shared = self._shared, {}
        return [shared.stream for shared in taken.values()]

    def _make_way(self, replica: str, shared: _Shared[S]) -> None:
        """Take a stream away from a replica that it does not lead to."""
        del self._shared[replica]
        stream = shared.stream
        if stream.broken is None and stream.replica not in ("", replica, *self._shared):
            self._shared[stream.replica] = shared  # a balancer brought it there
        else:
            stream.end()
