"""
Runs a served network with hard heads: after every step, each head is put on one location.

After each step a checkpoint of the session is taken, changed and restored. In the state that the
next step starts from

- every weighting is 1 at one location and 0 elsewhere,
- every read vector is the memory's row at its head's location, as the step found the memory,
- the memory is what the write heads write at their locations: M_t = M_{t-1} (1 - w e) + w a
  (equations 3 and 4), with the step's own erase and add vectors.

Within one step the heads stay soft: the network computes a soft weighting from the hard one before
it, by equations 5 to 9, and the output of that step depends on what the soft weighting read. The
LSTM's state is not changed; it gets the hard reads from the next step on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from ntm_client import checkpoint
from ntm_client.blocking import Session
from ntm_client.checkpoint import Checkpoint
from ntm_client.values import Float32
from ntm_lab.decipher.samples import ServedNetwork
from ntm_lab.recordings.contents import write
from ntm_lab.recordings.instructions import NORM_EPSILON
from ntm_tasks import TaskSequence

By = Literal["weighting", "choices"]
"""
How the location of a hard head is chosen.

`weighting`: the location with the most weight. `choices`: each choice of the head is made hard by
itself. The head starts at the location that is most like its key if its gate is above one half, and
else where it was. Then it moves by the shift with the most weight. The sharpening has no effect.
"""

WAYS: tuple[By, ...] = ("weighting", "choices")

Places = npt.NDArray[np.intp]
"""[heads]: a location for each head."""


@dataclass(frozen=True)
class Hardening:
    """The numbers of wrong bits of the same sequences with soft and with hard heads."""

    by: By
    sequences: int
    bits: int
    """Bits that count, of all sequences."""
    soft_wrong: int
    hard_wrong: int
    changed: int
    """Bits that differ between hard and soft heads."""


def harden(network: ServedNetwork, sequences: Sequence[TaskSequence], by: By) -> Hardening:
    """Compare hard with soft heads on the sequences. The model must have a memory."""
    soft = network.outputs([sequence.inputs for sequence in sequences])
    hard = network.each(lambda sequence: hard_outputs(network, sequence.inputs, by), sequences)
    answers = [
        (sequence.due > 0.5, sequence.answer(one) > 0.5, sequence.answer(other) > 0.5)
        for sequence, one, other in zip(sequences, soft, hard, strict=True)
    ]
    return Hardening(
        by,
        len(sequences),
        bits=sum(due.size for due, _, _ in answers),
        soft_wrong=sum(int((one != due).sum()) for due, one, _ in answers),
        hard_wrong=sum(int((other != due).sum()) for due, _, other in answers),
        changed=sum(int((one != other).sum()) for _, one, other in answers),
    )


def hard_outputs(network: ServedNetwork, inputs: Float32, by: By) -> Float32:
    """The outputs [T, output width] of a new session with hard heads."""
    place = {"weighting": most_weight, "choices": hard_choices}[by]
    outputs = []
    with network.session() as session:
        state = checkpoint.decode(session.checkpoint())
        for x in inputs:
            output, state = _step(session, x, state, place)
            outputs.append(output)
    return np.stack(outputs)


@dataclass(frozen=True)
class Step:
    """What all heads did in one step, the read heads first."""

    memory: Float32
    """[N, M]: the memory before the step."""
    before: Places
    """The location of each head before the step."""
    traces: dict[str, Float32]
    """[heads, width], by the traces' names without `read_` and `write_`."""


def most_weight(step: Step) -> Places:
    """The location of each head's largest weight."""
    places: Places = step.traces["weighting"].argmax(1)
    return places


def hard_choices(step: Step) -> Places:
    """The location that each head reaches if its gate, its key and its shift are each made hard."""
    key = step.traces["key"]
    lengths = np.sqrt((step.memory**2).sum(1) + NORM_EPSILON)
    alike = step.memory @ key.T / lengths[:, None]
    by_content = step.traces["gate"][:, 0] > 0.5
    start = np.where(by_content, alike.argmax(0), step.before)
    shift = step.traces["shift"]
    moved: Places = (start + shift.argmax(1) - shift.shape[1] // 2) % len(step.memory)
    return moved


def _step(
    session: Session, x: Float32, before: Checkpoint, place: Callable[[Step], Places]
) -> tuple[Float32, Checkpoint]:
    """
    Make a step and put every head on one location; return the outputs [output width] and the state.
    """
    model = session.model
    memory = before.tensor("memory", model).T
    result = session.step(x, traces=[trace.name for trace in model.traces])
    heads = {
        name: np.concatenate([result.traces[f"read_{name}"], result.traces[f"write_{name}"]])
        for name in ("weighting", "key", "gate", "shift")
    }
    places = place(Step(memory, before.tensor("weighting", model).argmax(1), heads))
    hard = np.eye(session.locations, dtype=np.float32)[places]
    reading, writing = np.split(hard, [model.read_heads])
    written = write(memory, writing, result.traces["erase_vector"], result.traces["add_vector"])
    soft = checkpoint.decode(session.checkpoint())
    after = soft.changed(memory=written.T, weighting=hard, read_vector=reading @ memory)
    session.restore(checkpoint.encode(after))
    return result.array, after
