"""Replays: what a session's last chunks led to, kept for clients that lost the answer."""

from __future__ import annotations

import zlib

from service.work import Chunk, ChunkOutcome

_Key = tuple[int, int, int, tuple[str, ...], int]
"""First step, steps, CRC-32 of the inputs, traces, top k: what the same chunk has alike."""


class Replays:
    """The outcomes of a session's last chunks, as many as fit."""

    __slots__ = ("_bytes", "_most_bytes", "_outcomes")

    def __init__(self, most_bytes: int) -> None:
        """Keep so many bytes of outputs and traces."""
        self._most_bytes = most_bytes
        self._outcomes: dict[_Key, ChunkOutcome] = {}
        self._bytes = 0

    def add(self, chunk: Chunk) -> None:
        """Keep a finished chunk's outcome, unless it alone is too large; drop the oldest for it."""
        made: ChunkOutcome = chunk.outcome
        # The outputs may be a view of their batch's, which must not be kept whole.
        outcome = ChunkOutcome(made.first_step, made.outputs.copy(), made.traces)
        self._outcomes[_key(chunk)] = outcome
        self._bytes += outcome.nbytes
        while self._bytes > self._most_bytes:
            oldest = next(iter(self._outcomes))
            self._bytes -= self._outcomes.pop(oldest).nbytes

    def find(self, chunk: Chunk) -> ChunkOutcome | None:
        """What the very same chunk led to, if that is kept."""
        return self._outcomes.get(_key(chunk))

    def clear(self) -> None:
        """Forget all: the session's steps are others from now on."""
        self._outcomes.clear()
        self._bytes = 0


def _key(chunk: Chunk) -> _Key:
    assert chunk.first_step is not None, "a chunk without an index is never the same as another"
    inputs = zlib.crc32(chunk.inputs.data)
    return chunk.first_step, len(chunk.inputs), inputs, chunk.selection, chunk.top_k
