"""A memory that holds whole inputs, and the search for a location by its content."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ntm_client.values import Float32


class Tape:
    """The inputs that are stored, by location, and the order in which they were written."""

    def __init__(self) -> None:
        self.contents: dict[int, Float32] = {}
        """The input [input width] that is stored at each location in use."""
        self.written: list[int] = []
        """The locations that were written, in the order of writing."""
        self._latest: dict[int, int] = {}
        """The index in `written` of the last write to each location."""

    def write(self, location: int, content: Float32 | None) -> None:
        """Store an input at a location, or clear the location if `content` is None."""
        if content is None:
            self.contents.pop(location, None)
        else:
            self.contents[location] = content
        self._latest[location] = len(self.written)
        self.written.append(location)

    def matching(self, inputs: Sequence[Float32], writes: int) -> int | None:
        """
        The location that holds the last of these inputs, among the first `writes` writes; None if
        none does. What was written over counts no more, as on a ring that is full.

        If several locations hold it, more of the inputs are compared: the location wins whose
        preceding writes match most of the preceding inputs. If these are equal too, the latest
        write wins.
        """
        best, longest = None, 0
        for index in range(writes - 1, -1, -1):
            length = 0
            while length < len(inputs) and length <= index:
                location = self.written[index - length]
                if self._latest[location] != index - length:
                    break
                content = self.contents.get(location)
                if content is None or not np.array_equal(content, inputs[-1 - length]):
                    break
                length += 1
            if length > longest:
                best, longest = self.written[index], length
        return best

    def ranked(self, channel: int, rank: int) -> int | None:
        """
        The location of the `rank`-th largest value of a channel, counted from 0; None beyond the
        last.
        """
        order = sorted(self.contents, key=lambda location: -float(self.contents[location][channel]))
        return order[rank] if 0 <= rank < len(order) else None
