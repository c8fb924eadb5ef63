"""A session of the fake server: what it answers, and what of it is stored."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ntm.v1 import ntm_pb2 as pb
from ntm_client.values import Float32


@dataclass
class FakeSession:
    """The inputs so far decide everything that the session answers."""

    description: pb.Session
    inputs: list[Float32] = field(default_factory=list)
    answered: dict[bytes, pb.Reply] = field(default_factory=dict)
    """By the chunks, the last replies."""
    stored: list[Float32] = field(default_factory=list)
    """The inputs as they were stored last, and the replies."""
    stored_replies: dict[bytes, pb.Reply] = field(default_factory=dict)

    def answer(self, chunk: pb.Chunk, reply: pb.Reply, window: int) -> None:
        """Keep a chunk's reply, and store what the policy wants stored now: whole chunks only."""
        durability, made = self.description.durability, len(self.inputs)
        every = {pb.Durability.POLICY_SYNCHRONOUS: 1}.get(
            durability.policy, durability.every_steps or made + 1
        )
        is_due = made >= len(self.stored) + every
        reply.durable_step = made if is_due else len(self.stored)
        self.description.durable_step = reply.durable_step
        self.answered[key(chunk)] = reply
        while len(self.answered) > window:
            del self.answered[next(iter(self.answered))]
        if is_due:
            self.stored, self.stored_replies = list(self.inputs), dict(self.answered)

    def lose(self) -> None:
        """Come back as stored."""
        self.inputs, self.answered = list(self.stored), dict(self.stored_replies)

    def set_back(self, steps: int) -> None:
        """Keep so many steps, and store that."""
        self.inputs = self.inputs[:steps]
        self.answered.clear()
        self.stored, self.stored_replies = list(self.inputs), {}
        self.description.durable_step = self.description.next_step = len(self.inputs)

    def step(self, values: Float32) -> tuple[Float32, dict[str, Float32]]:
        """The outputs of one step and its traces, each [heads, width]."""
        self.inputs.append(values)
        outputs = self._outputs()
        head = np.zeros((1, max(self.description.locations, 1)), np.float32)
        head[0, (len(self.inputs) - 1) % head.shape[1]] = 1
        vectors = outputs[np.newaxis]
        traces = {"read_weighting": head * 0.75, "write_weighting": head}
        return outputs, traces | {"add_vector": -vectors, "read_vector": vectors}

    def _outputs(self) -> Float32:
        inputs = np.stack(self.inputs)
        if self.description.model != "copy":
            total: Float32 = inputs.sum(0)
            return total
        delimiter = int(inputs[:, 8].argmax()) if inputs[:, 8].any() else len(inputs)
        position = len(inputs) - delimiter - 2
        if 0 <= position < min(delimiter, self.description.locations):
            return inputs[position, :8] * 0.9
        return np.zeros(8, np.float32)


def key(chunk: pb.Chunk) -> bytes:
    """What the same chunk has alike."""
    return chunk.SerializeToString(deterministic=True)
