"""Replays: what a session's last chunks led to, kept for clients that lost the answer."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import NamedTuple

from service.engine.work import Chunk, ChunkOutcome


class Asked(NamedTuple):
    """What two chunks have alike if they are the same."""

    first_step: int
    steps: int
    inputs_crc32: int
    traces: tuple[str, ...]
    top_k: int


Replay = tuple[Asked, ChunkOutcome]

MAX_REPLAY_BYTES = 65_536
"""Bytes of outputs and traces that each session keeps, for clients that lost an answer."""


class Replays:
    """The outcomes of a session's last chunks, as many as fit."""

    __slots__ = ("_bytes", "_most_bytes", "_outcomes")

    def __init__(self, most_bytes: int, replays: Iterable[Replay] = ()) -> None:
        """Keep so many bytes of outputs and traces, to begin with of these, oldest first."""
        self._most_bytes = most_bytes
        self._outcomes: dict[Asked, ChunkOutcome] = {}
        self._bytes = 0
        for asked, outcome in replays:
            self._keep(asked, outcome)

    def all(self) -> tuple[Replay, ...]:
        """What is kept, oldest first."""
        return tuple(self._outcomes.items())

    def add(self, chunk: Chunk) -> None:
        """Keep a finished chunk's outcome, unless it alone is too large; drop the oldest for it."""
        made: ChunkOutcome = chunk.outcome
        # The outputs may be a view of their batch's, which must not be kept whole.
        self._keep(_asked(chunk), ChunkOutcome(made.first_step, made.outputs.copy(), made.traces))

    def find(self, chunk: Chunk) -> ChunkOutcome | None:
        """What the very same chunk led to, if that is kept."""
        return self._outcomes.get(_asked(chunk))

    def clear(self) -> None:
        """Forget all: the session's steps are others from now on."""
        self._outcomes.clear()
        self._bytes = 0

    def _keep(self, asked: Asked, outcome: ChunkOutcome) -> None:
        self._outcomes[asked] = outcome
        self._bytes += outcome.nbytes
        while self._bytes > self._most_bytes:
            oldest = next(iter(self._outcomes))
            self._bytes -= self._outcomes.pop(oldest).nbytes


def _asked(chunk: Chunk) -> Asked:
    assert chunk.first_step is not None, "a chunk without an index is never the same as another"
    inputs = zlib.crc32(chunk.inputs.data)
    return Asked(chunk.first_step, len(chunk.inputs), inputs, chunk.selection, chunk.top_k)
