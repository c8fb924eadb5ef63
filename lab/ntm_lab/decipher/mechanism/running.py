"""Runs a mechanism on many sequences at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ntm_client.values import Float32
from ntm_lab.decipher.interventions import Intervention, MovedHeads
from ntm_lab.decipher.mechanism.model import PARTS, Mechanism, Part, Situation
from ntm_lab.decipher.mechanism.regression import Floats, sigmoid, softplus
from ntm_lab.decipher.mechanism.soft_memory import Actions, SoftMemory, softmax
from ntm_lab.decipher.phases import Moment, moments
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
    clocks = [moments(mechanism.phases, one) for one in padded]
    state = SoftMemory(mechanism.start, len(inputs))
    reads = [state.reads]
    counts = np.zeros(len(inputs))
    outputs = []
    for step in range(steps):
        for row, change in enumerate(changes):
            if change is not None and change.step == step and program is not None:
                change.to_state(state.memory[row], state.weightings[row], state.read_heads, program)
        now = [clock[step] for clock in clocks]
        counts = np.where([begins(clock, step) for clock in clocks], 0, counts)
        values = np.array([moment.values[moment.phase] for moment in now])
        features = mechanism.features(padded, step, values, counts, reads)
        chosen = [
            mechanism.nearest(mechanism.situation(moment.phase, moment.offset, value, count))
            for moment, value, count in zip(now, values, counts, strict=True)
        ]
        rows = {one: np.flatnonzero([one == each for each in chosen]) for one in set(chosen)}
        actions = _actions(mechanism, rows, features)
        state.step(actions)
        known = np.concatenate([features, mechanism.kept(state.reads).reshape(len(inputs), -1)], 1)
        outputs.append(np.tanh(applied(mechanism, "output", rows, known)).astype(np.float32))
        if mechanism.counter is not None:
            counts = counts + (actions.gate[:, mechanism.counter.head, 0] > 0.5)
        reads = [state.reads, *reads][: mechanism.read_steps]
    together = np.stack(outputs, 1)
    return [together[row, : len(one)] for row, one in enumerate(inputs)]


def begins(clock: Sequence[Moment], step: int) -> bool:
    """Whether a step is the first one of its phase."""
    return step == 0 or clock[step].phase != clock[step - 1].phase


def applied(
    mechanism: Mechanism, part: Part, rows: dict[Situation, np.ndarray], features: Floats
) -> Floats:
    """A part [B, K] by the maps of the situations that the rows are in."""
    width = next(iter(mechanism.maps.values()))[part].shape[1]
    found = np.zeros((len(features), width))
    for situation, own in rows.items():
        found[own] = features[own] @ mechanism.maps[situation][part]
    return found


def _actions(mechanism: Mechanism, rows: dict[Situation, np.ndarray], features: Floats) -> Actions:
    values = {part: applied(mechanism, part, rows, features) for part in PARTS if part != "output"}
    sessions, heads = len(features), mechanism.read_heads + mechanism.write_heads
    reads = mechanism.read_heads

    def shaped(found: Floats, count: int) -> Float32:
        return found.reshape(sessions, count, -1).astype(np.float32)

    shifts = values["shift"].reshape(sessions, heads, -1)
    erase = shaped(sigmoid(values["erase"]), mechanism.write_heads)
    add = shaped(np.tanh(values["add"]), mechanism.write_heads)
    for head in mechanism.dropped:
        if head >= reads:
            erase[:, head - reads] = 0
            add[:, head - reads] = 0
    return Actions(
        key=shaped(np.tanh(values["key"]), heads),
        strength=shaped(softplus(values["strength"]), heads),
        gate=shaped(sigmoid(values["gate"]), heads),
        shift=softmax(shifts).astype(np.float32),
        sharpening=1 + shaped(softplus(values["sharpening"]), heads),
        erase=erase,
        add=add,
    )
