"""Recordings for tests, of a network whose heads all move on by one location a step."""

from __future__ import annotations

from typing import Any

import numpy as np

from ntm_client.values import Float32, Memory, Model, StateTensor, TraceTensor
from ntm_lab.recordings.recording import Recording

WIDTH = 5
"""Values of a memory location."""


def moving(steps: int, locations: int, by: int) -> Float32:
    """The weighting of one head that moves from location 0 in each step, [steps, 1, N]."""
    weighting = np.zeros((steps, 1, locations), np.float32)
    weighting[np.arange(steps), 0, np.arange(steps) * by % locations] = 1
    return weighting


def recording(heads: int = 1, steps: int = 12, locations: int = 16) -> Recording:
    """
    A copy sequence of that odd or even number of steps; one read head and that many write heads.

    Values have both signs and are not those of any other place, so that one out of place shows.
    """
    length = (steps - 1) // 2
    random = np.random.default_rng(1)
    inputs = random.integers(0, 2, (steps, 9)).astype(np.float32)
    outputs = random.random((steps, 8), np.float32)
    mask = (np.arange(steps) > length).astype(np.float32)
    asked: dict[str, Any] = {
        "size": (length,),
        "target": np.rint(outputs) * mask[:, None],
        "mask": mask,
        "marks": {length: "delimiter"},
    }
    if not heads:
        return Recording(_model(0, 0), 0, inputs, outputs, {}, **asked)
    traces = {
        "read_weighting": moving(steps, locations, 1),
        "write_weighting": np.repeat(moving(steps, locations, 1), heads, 1),
        "read_vector": random.random((steps, 1, WIDTH), np.float32),
        "erase_vector": random.random((steps, heads, WIDTH), np.float32),
        "add_vector": random.standard_normal((steps, heads, WIDTH), np.float32),
    }
    before, after = (
        Memory(
            next_step,
            random.standard_normal((locations, WIDTH), np.float32),
            moving(steps, locations, 1)[step],
            np.repeat(moving(steps, locations, 1)[step], heads, 0),
        )
        for next_step, step in ((0, 0), (steps, -1))
    )
    model = _model(heads, locations)
    return Recording(model, locations, inputs, outputs, traces, before, after, **asked)


def _model(heads: int, locations: int) -> Model:
    widths = {"read_weighting": -1, "write_weighting": -1, "read_vector": WIDTH}
    widths |= {"erase_vector": WIDTH, "add_vector": WIDTH}
    traces = tuple(
        TraceTensor(name, 1 if name.startswith("read") else heads, width)
        for name, width in widths.items()
    )
    return Model(
        name="copy-ntm" if heads else "copy-lstm",
        content_hash="0" * 64,
        task="copy",
        architecture="ntm-ff" if heads else "lstm",
        input_width=9,
        output_width=8,
        state=(StateTensor("memory", (WIDTH, -1)),) if heads else (),
        traces=traces if heads else (),
        read_heads=min(heads, 1),
        write_heads=heads,
        default_locations=locations,
        fixed_locations=False,
        provider="CPUExecutionProvider",
    )
