"""Decides which failures are temporary, and when a request is tried again."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

from google.protobuf.message import Message
from grpc import StatusCode

from ntm.v1 import ntm_pb2 as pb
from ntm_client.errors import (
    CapacityExceeded,
    ModelVersionUnknown,
    NtmClientError,
    SessionMoved,
    StreamBroken,
    StreamClosed,
    TimedOut,
    Unavailable,
)
from ntm_client.procedures import Ask, Attempt, Procedure, once
from ntm_client.resume import Resume

IDENTITY = (StatusCode.UNAUTHENTICATED, StatusCode.PERMISSION_DENIED)
"""Codes that end a stream whose token has expired. The next attempt may have a new token."""


class Retries:
    """How a client tries failed requests again."""

    def __init__(
        self,
        resume: Resume,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] = random.random,
    ) -> None:
        """Try again as `resume` says; `draw` gives numbers from 0 to 1 for the pauses."""
        self.resume = resume
        self.clock = clock
        self.draw = draw
        self.reached = False
        """
        Whether a server has answered yet. Before that, a missing connection means a wrong address.
        """

    def outage(self) -> Outage:
        """Start the record of a request that has not failed yet."""
        return Outage(self)

    def ask(self, request: Message) -> Procedure[Any]:
        """Return the response to a request, which is tried again if that can help."""
        outage = self.outage()
        while True:
            try:
                response = yield outage.attempt(request)
            except NtmClientError as error:
                outage.failed(error, request)
            else:
                self.reached = True
                return response


def ask_with(retries: Retries | None) -> Ask:
    """
    The way to make requests that name no session yet: with retries, or once if there are none.
    """
    return retries.ask if retries else once


class Outage:
    """The failures of one request so far, and the time of its next attempt."""

    def __init__(self, retries: Retries) -> None:
        self.last: NtmClientError | None = None
        """The last failure; None if there was none."""
        self.failures = 0
        self._retries = retries
        self._in_a_row = 0
        self._since = 0.0
        self._delay_seconds = 0.0

    @property
    def seconds(self) -> float:
        """Seconds since the first failure."""
        return self._retries.clock() - self._since

    def attempt(self, request: Message) -> Message | Attempt:
        """The request with the pause and the time limit of its next attempt."""
        if self.last is None:
            return request
        left = self._retries.resume.seconds - self.seconds - self._delay_seconds
        return Attempt(request, self._delay_seconds, max(left, 0.0))

    def failed(self, error: NtmClientError, request: Message) -> None:
        """
        Plan the next attempt. Raises the error if another attempt cannot help or is not allowed.
        """
        if not self._passes(error):
            raise error
        if isinstance(request, pb.CreateSessionRequest) and isinstance(error, ModelVersionUnknown):
            raise error  # no session shows yet that some replica has that version
        self.plan(error)

    def plan(self, error: NtmClientError) -> None:
        """Plan the next attempt. Raises the error if there is no time left for it."""
        resume = self._retries.resume
        if self.last is None:
            self._since = self._retries.clock()
        self.failures += 1
        self._in_a_row += 1
        pause = resume.backoff_seconds(self._in_a_row, self._retries.draw())
        self._delay_seconds = max(pause, error.retry_delay_seconds or 0.0)
        if self.seconds + self._delay_seconds >= resume.seconds:
            error.add_note(f"gave up after {self.failures} attempts in {self.seconds:.1f} s")
            raise error
        self.last = error

    def answered(self) -> None:
        """Note that a server answered: the next attempt needs no pause."""
        self._in_a_row = 0
        self._delay_seconds = 0.0

    def _passes(self, error: NtmClientError) -> bool:
        if isinstance(error, StreamClosed) or not (self._retries.reached or error.reason):
            return False
        if isinstance(error, CapacityExceeded):
            # The other replicas get all sessions of a lost replica at once, so a limit is
            # temporary.
            return self.last is not None
        if isinstance(error, StreamBroken) and error.code in IDENTITY:
            return self.last is None
        # The session was opened on this version, so some replica has the version or will have it
        # again.
        passing = Unavailable | TimedOut | SessionMoved | ModelVersionUnknown
        return isinstance(error, passing)
