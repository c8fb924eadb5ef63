"""
Replays: the outcomes of a session's last chunks, kept for clients that did not get the answer.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import NamedTuple

from service.engine.work import Chunk, ChunkOutcome


class Asked(NamedTuple):
    """The values that identify a chunk. A chunk that is sent again has the same ones."""

    first_step: int
    steps: int
    inputs_crc32: int
    traces: tuple[str, ...]
    top_k: int


Replay = tuple[Asked, ChunkOutcome]


class Replays:
    """The outcomes of a session's last chunks, as many as fit into a number of bytes."""

    __slots__ = ("_bytes", "_max_bytes", "_outcomes")

    def __init__(self, max_bytes: int, replays: Iterable[Replay] = ()) -> None:
        """Keep at most `max_bytes` of outputs and traces; start with `replays`, oldest first."""
        self._max_bytes = max_bytes
        self._outcomes: dict[Asked, ChunkOutcome] = {}
        self._bytes = 0
        for asked, outcome in replays:
            self._keep(asked, outcome)

    def all(self) -> tuple[Replay, ...]:
        """All replays, oldest first."""
        return tuple(self._outcomes.items())

    def add(self, chunk: Chunk) -> None:
        """Keep a finished chunk's outcome, unless it alone is too large; drop the oldest for it."""
        made: ChunkOutcome = chunk.outcome
        # The outputs may be a view of their batch's outputs; a copy lets the batch's be freed.
        self._keep(_asked(chunk), ChunkOutcome(made.first_step, made.outputs.copy(), made.traces))

    def find(self, chunk: Chunk) -> ChunkOutcome | None:
        """The outcome of the same chunk if it is kept, else None."""
        return self._outcomes.get(_asked(chunk))

    def clear(self) -> None:
        """Forget all outcomes, because the session was set back and will make other steps."""
        self._outcomes.clear()
        self._bytes = 0

    def _keep(self, asked: Asked, outcome: ChunkOutcome) -> None:
        self._outcomes[asked] = outcome
        self._bytes += outcome.nbytes
        while self._bytes > self._max_bytes:
            oldest = next(iter(self._outcomes))
            self._bytes -= self._outcomes.pop(oldest).nbytes


def _asked(chunk: Chunk) -> Asked:
    assert chunk.first_step is not None, "a chunk without an index is never the same as another"
    inputs = zlib.crc32(chunk.inputs.data)
    return Asked(chunk.first_step, len(chunk.inputs), inputs, *chunk.selection)
