"""Chunks that are sent ahead are on one stream, in order, or are not sent ahead."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

import pytest

from ntm.v1 import ntm_pb2 as pb
from ntm_client import StreamClosed
from ntm_client.ahead import SentAhead
from ntm_client.errors import NtmClientError
from ntm_client.procedures import BaseSession

REQUESTS = [pb.StepRequest(chunk=pb.Chunk(first_step=step)) for step in range(3)]


@dataclass
class Sent:
    """A chunk on a stream."""

    stream: Stream


@dataclass
class Stream:
    """A stream that keeps what was given up."""

    broken: NtmClientError | None = None
    cancelled: list[Any] = field(default_factory=list)

    def cancel(self, pending: Any) -> None:
        """Give it up."""
        self.cancelled.append(pending)


@dataclass
class Streams:
    """Finds these streams for the chunks, one after another."""

    found: deque[Stream]

    def begin(self, session: BaseSession, request: pb.StepRequest) -> Sent:
        """Send it on the next one."""
        return Sent(self.found.popleft())


@pytest.fixture
def session() -> Any:
    """A session, of which only streams want to know."""
    return None


def test_what_could_overtake_is_not_sent_ahead(session: BaseSession) -> None:
    """A chunk that another stream is found for is given up, and asked for later."""
    one, other = Stream(), Stream()
    ahead = SentAhead(Streams(deque([one, other, one])))
    ahead.send(session, REQUESTS)

    assert len(other.cancelled) == 1
    assert ahead.take(REQUESTS[0]) == Sent(one)
    assert ahead.take(REQUESTS[1]) is None
    assert one.cancelled == []


def test_nothing_is_sent_behind_what_broke(session: BaseSession) -> None:
    """The chunks before it are sent again, and would come after it."""
    broken = Stream()
    streams = Streams(deque([broken, broken]))
    ahead = SentAhead(streams)
    ahead.send(session, REQUESTS[:1])
    broken.broken = StreamClosed("it ended")
    ahead.send(session, REQUESTS)

    assert list(streams.found) == [broken]
    assert ahead.take(REQUESTS[0]) == Sent(broken)
    assert ahead.take(REQUESTS[1]) is None
