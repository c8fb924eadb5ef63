"""Runs a mechanism on many sequences at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ntm_client.values import Float32
from ntm_lab.decipher.interventions import Intervention, MovedHeads
from ntm_lab.decipher.mechanism.activations import Floats, hyperbolic, sigmoid, softplus
from ntm_lab.decipher.mechanism.knowledge import Knowledge
from ntm_lab.decipher.mechanism.model import Mechanism, columns, with_one
from ntm_lab.decipher.mechanism.soft_memory import Actions, SoftMemory, softmax
from ntm_lab.decipher.program import Program


def answers(
    mechanism: Mechanism,
    inputs: Sequence[Float32],
    changes: Sequence[Intervention | None] = (),
    program: Program | MovedHeads | None = None,
) -> list[Float32]:
    """
    The outputs [T, output width] for each sequence of inputs [T, input width], from -1 to 1.

    An output above 0 is a 1. `changes` are made to the state on the way, one for each sequence; a
    move moves the head that `program` describes.
    """
    steps = max(len(one) for one in inputs)
    padded = np.zeros((len(inputs), steps, inputs[0].shape[1]), np.float32)
    for row, one in enumerate(inputs):
        padded[row, : len(one)] = one
    state = SoftMemory(mechanism.start, len(inputs))
    knowledge = Knowledge(mechanism.known, mechanism.phases, padded, state.reads[0].size)
    outputs = []
    for step in range(steps):
        for row, change in enumerate(changes):
            if change is not None and change.step == step and program is not None:
                change.to_state(state.memory[row], state.weightings[row], state.read_heads, program)
        known = knowledge.at(step, mechanism.kept(state.reads))
        units = np.tanh(with_one(known) @ mechanism.layer.units)
        state.step(_actions(mechanism, with_one(units) @ mechanism.layer.heads))
        read = mechanism.kept(state.reads).reshape(len(inputs), -1)
        seen = np.concatenate([units, with_one(read)], 1) @ mechanism.layer.output
        outputs.append(hyperbolic(seen))
    together = np.stack(outputs, 1)
    return [together[row, : len(one)] for row, one in enumerate(inputs)]


def _actions(mechanism: Mechanism, values: Float32) -> Actions:
    """What the heads do, from all parts [B, K] before the activation functions."""
    sessions, reads = len(values), mechanism.read_heads
    precise = values.astype(np.float64)
    parts = {part: precise[:, place] for part, place in columns(mechanism.start).items()}

    def shaped(found: Floats, count: int) -> Float32:
        return found.reshape(sessions, count, -1).astype(np.float32)

    heads = reads + mechanism.write_heads
    erase = shaped(sigmoid(parts["erase"]), mechanism.write_heads)
    add = shaped(hyperbolic(parts["add"]), mechanism.write_heads)
    for head in mechanism.dropped:
        if head >= reads:
            erase[:, head - reads] = 0
            add[:, head - reads] = 0
    return Actions(
        key=shaped(hyperbolic(parts["key"]), heads),
        strength=shaped(softplus(parts["strength"]), heads),
        gate=shaped(sigmoid(parts["gate"]), heads),
        shift=softmax(shaped(parts["shift"], heads)),
        sharpening=1 + shaped(softplus(parts["sharpening"]), heads),
        erase=erase,
        add=add,
    )
