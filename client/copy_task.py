"""The copy task of the paper: some random vectors, a delimiter, and then the vectors again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from client.errors import InvalidRequest
from client.records import Float32, Model


@dataclass(frozen=True, eq=False)
class CopySequence:
    """A sequence that asks a network to copy."""

    inputs: Float32
    """[2 length + 1, bits + 1]: the vectors, the delimiter on the last channel, and zeros."""
    target: Float32
    """[length, bits]: what the network should answer after the delimiter."""

    @classmethod
    def random(cls, model: Model, length: int, seed: int | None = None) -> CopySequence:
        """
        That many random binary vectors for a model that was trained to copy.

        Raises:
            InvalidRequest: the model's widths are not those of the copy task.
        """
        bits = model.output_width
        if model.input_width != bits + 1:
            raise InvalidRequest(
                f"{model.name} takes {model.input_width} values and gives {bits}: not a model of "
                f"the copy task, which takes one more than it gives"
            )
        target = np.random.default_rng(seed).integers(0, 2, (length, bits)).astype(np.float32)
        inputs = np.zeros((2 * length + 1, bits + 1), np.float32)
        inputs[:length, :bits] = target
        inputs[length, bits] = 1
        return cls(inputs, target)

    @property
    def delimiter_step(self) -> int:
        """Index of the step between the vectors and the answer."""
        return len(self.target)

    def answer(self, outputs: Float32) -> Float32:
        """The part of the outputs that is the answer, as bits [length, bits]."""
        return (outputs[self.delimiter_step + 1 :] > 0.5).astype(np.float32)
