"""A memory whose contents are inputs, and how a location is found by what it holds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ntm_client.values import Float32


class Tape:
    """What is stored where, and in which order it was written."""

    def __init__(self) -> None:
        self.contents: dict[int, Float32] = {}
        """By location, the input [input width] that is stored there."""
        self.written: list[int] = []
        """The locations that were written, in the order of writing."""

    def write(self, location: int, content: Float32 | None) -> None:
        """Store an input, or nothing."""
        if content is None:
            self.contents.pop(location, None)
        else:
            self.contents[location] = content
        self.written.append(location)

    def matching(self, inputs: Sequence[Float32], writes: int) -> int | None:
        """
        The location, of the first so many written, that holds what the last of these inputs is.

        Of several, the one before which most of the inputs before it were written likewise, and
        then the latest.
        """
        best, longest = None, 0
        for index in range(writes - 1, -1, -1):
            length = 0
            while length < len(inputs) and length <= index:
                content = self.contents.get(self.written[index - length])
                if content is None or not np.array_equal(content, inputs[-1 - length]):
                    break
                length += 1
            if length > longest:
                best, longest = self.written[index], length
        return best

    def ranked(self, channel: int, rank: int) -> int | None:
        """The location with the largest value of a channel at rank 0, the next at 1, and so on."""
        order = sorted(self.contents, key=lambda location: -float(self.contents[location][channel]))
        return order[rank] if 0 <= rank < len(order) else None
