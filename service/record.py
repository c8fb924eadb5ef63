"""Records: a session as bytes for a store, with all that another replica needs to go on with it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC

import numpy as np
from google.protobuf.message import DecodeError

from ntm.v1 import ntm_pb2
from service import codec
from service.engine import checkpoint
from service.engine.checkpoint import Checkpoint
from service.engine.replays import Asked, Replay
from service.engine.saving import Durability, Snapshot
from service.engine.work import ChunkOutcome, TraceRows
from service.errors import CheckpointDamaged
from service.models.version import Version
from service.records.v1 import record_pb2
from service.spec import ModelSpec

_FLOAT, _LOCATION = np.dtype("<f4"), np.dtype("<u4")


@dataclass(frozen=True, slots=True)
class Stored:
    """A session as a store had it."""

    owner: str
    version: Version
    idle_timeout_seconds: float
    created_unix_seconds: float
    durability: Durability
    checkpoint: Checkpoint
    chunks: tuple[record_pb2.StoredChunk, ...]
    """Its last ones, oldest first."""

    def replays(self, spec: ModelSpec) -> list[Replay]:
        """
        Its last chunks and what they led to, of a network with that spec.

        Raises CheckpointDamaged if they do not fit it.
        """
        try:
            return [_replay(chunk, spec) for chunk in self.chunks]
        except ValueError as error:
            raise CheckpointDamaged(f"the stored chunks do not fit the model: {error}") from error


def encode(snapshot: Snapshot) -> bytes:
    """The record of a session as the snapshot has it."""
    stored = record_pb2.StoredSession(
        owner=snapshot.owner,
        session=codec.session(snapshot.view),
        checkpoint=checkpoint.encode(snapshot.checkpoint),
    )
    for asked, outcome in snapshot.replays:
        chunk = stored.chunks.add(inputs_crc32=asked.inputs_crc32)
        if asked.traces or asked.top_k:
            chunk.traces.names.extend(asked.traces)
            chunk.traces.top_k = asked.top_k
        codec.write_outcome(outcome, chunk.reply)
    return stored.SerializeToString()


def decode(record: bytes) -> Stored:
    """
    Read a record.

    Raises:
        CheckpointDamaged, CheckpointTooNew: it is not what was stored, or a later server wrote it.
    """
    try:
        stored = record_pb2.StoredSession.FromString(record)
    except DecodeError as error:
        raise CheckpointDamaged(f"the stored session cannot be read: {error}") from error
    session, taken = stored.session, checkpoint.decode(stored.checkpoint)
    return Stored(
        owner=stored.owner,
        version=Version(session.model, taken.content_hash),
        idle_timeout_seconds=session.idle_timeout.ToTimedelta().total_seconds(),
        created_unix_seconds=session.create_time.ToDatetime(UTC).timestamp(),
        durability=codec.durability(session) or Durability(),
        checkpoint=taken,
        chunks=tuple(stored.chunks),
    )


def _replay(chunk: record_pb2.StoredChunk, spec: ModelSpec) -> Replay:
    reply = chunk.reply
    outputs = np.frombuffer(reply.outputs, _FLOAT).reshape(-1, spec.output_width)
    steps = len(outputs)
    traces = tuple(_rows(trace, steps) for trace in reply.traces)
    asked = Asked(
        reply.first_step, steps, chunk.inputs_crc32, tuple(chunk.traces.names), chunk.traces.top_k
    )
    return asked, ChunkOutcome(reply.first_step, outputs.astype(np.float32, copy=False), traces)


def _rows(trace: ntm_pb2.Trace, steps: int) -> TraceRows:
    shape = (steps, trace.heads, trace.width)
    values = np.frombuffer(trace.values, _FLOAT).reshape(shape).astype(np.float32, copy=False)
    locations = None
    if trace.locations:
        locations = np.frombuffer(trace.locations, _LOCATION).reshape(shape).astype(np.uint32)
    return TraceRows(trace.name, values, locations)
