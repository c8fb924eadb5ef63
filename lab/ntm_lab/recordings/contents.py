"""Computes the memory at every step of a recording, from the memory before it and the writes."""

from __future__ import annotations

import numpy as np

from ntm_client.errors import InvalidRequest
from ntm_client.values import Float32, Memory
from ntm_lab.recordings.recording import ADD_VECTOR, ERASE_VECTOR, WRITE_WEIGHTING, Recording


def memory_before(recording: Recording) -> Memory:
    """
    The memory that a recording starts with.

    Raises:
        InvalidRequest: the network has no memory.
    """
    if recording.before is None:
        raise InvalidRequest(
            f"{recording.model.name} has no memory to decipher; record a model with heads"
        )
    return recording.before


def trace(recording: Recording, name: str) -> Float32:
    """
    A trace [T, heads, width] that deciphering cannot do without.

    Raises:
        InvalidRequest: the model has no trace of that name.
    """
    if name not in recording.traces:
        raise InvalidRequest(
            f"{recording.model.name} has no trace {name!r}, which deciphering needs; "
            f"it has {', '.join(recording.traces) or 'none'}"
        )
    return recording.traces[name]


def write(memory: Float32, weightings: Float32, erases: Float32, adds: Float32) -> Float32:
    """
    The memory [N, M] after all heads have erased, then added (equations 3 and 4).

    `memory` [N, M], `weightings` [W, N], `erases` and `adds` [W, M]; none of them is changed.
    """
    kept = (1 - weightings[:, :, None] * erases[:, None, :]).prod(0)
    written: Float32 = memory * kept + weightings.T @ adds
    return written


def contents(recording: Recording) -> Float32:
    """
    The memories [T + 1, N, M] before the first step, and after each.

    Raises:
        InvalidRequest: the network has no memory, or does not trace its writes.
    """
    weightings = trace(recording, WRITE_WEIGHTING)
    erases = trace(recording, ERASE_VECTOR)
    adds = trace(recording, ADD_VECTOR)
    first = memory_before(recording).memory
    memories = np.empty((len(recording.inputs) + 1, *first.shape), np.float32)
    memories[0] = first
    for step in range(len(recording.inputs)):
        memories[step + 1] = write(memories[step], weightings[step], erases[step], adds[step])
    return memories
