"""Reads the steps of an input in a thread of its own, ahead of whoever makes them."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from queue import Empty, Queue
from typing import BinaryIO, Self

import numpy as np

from ntm_client.values import Float32

CALLS_AHEAD = 4
"""Steps are read ahead for this many calls."""

JOIN_SECONDS = 0.2
"""For how long the end waits for the thread. It may be in a read from a pipe that never ends."""


class ReadAhead:
    """
    The steps of an input, [steps, width] each time, read in a thread from `begin` on.

    Iterating waits for the next steps and yields all that are read by then, up to a call's number.
    An error of reading is raised after the steps before it. A `with` block opens the input, and at
    its end lets it go.
    """

    def __init__(self, source: AbstractContextManager[BinaryIO]) -> None:
        """The source is entered with the `with` block of this."""
        self._files = ExitStack()
        self._source = source
        self._error: BaseException | None = None
        self._is_over = False
        self._is_given_up = False
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self.file = self._files.enter_context(self._source)
        return self

    def begin(self, blocks: Iterator[Float32], blocks_per_call: int) -> None:
        """
        Start the thread.

        Args:
            blocks: The steps, as they are read from `file`.
            blocks_per_call: How many of the iterator's arrays are taken together at most.
        """
        self._per_call = blocks_per_call
        self._queue: Queue[Float32 | None] = Queue(CALLS_AHEAD * blocks_per_call)
        # A daemon: the process must be able to end while it waits for a line.
        self._thread = threading.Thread(
            target=self._read, args=(blocks,), name="ntm-read", daemon=True
        )
        self._thread.start()

    def __exit__(self, *exception: object) -> None:
        if self._thread is not None:
            self._is_given_up = True
            while self.take() is not None:
                pass  # the thread may wait for room
            self._thread.join(JOIN_SECONDS)
            if self._thread.is_alive():
                return  # it is in a read, and closing a file would wait for that
        self._files.close()

    def __iter__(self) -> Iterator[Float32]:
        while (steps := self.take(wait=True)) is not None:
            yield steps
        if self._error is not None:
            raise self._error

    def take(self, wait: bool = False) -> Float32 | None:
        """
        Return the steps that are read and not taken yet, up to a call's number; None if there are
        none. With `wait`, None is only the end.
        """
        taken: list[Float32] = []
        while len(taken) < self._per_call and not self._is_over:
            try:
                block = self._queue.get(block=wait and not taken)
            except Empty:
                break
            if block is None:
                self._is_over = True
            else:
                taken.append(block)
        return np.concatenate(taken) if taken else None

    def _read(self, blocks: Iterator[Float32]) -> None:
        # The interpreter, when it ends, closes an input that nobody refers to; while a thread is in
        # a read of it, that would abort the process.
        standard_input = sys.stdin
        try:
            for block in blocks:
                self._queue.put(block)
                if self._is_given_up:
                    break
        except BaseException as error:  # raised where the steps are taken
            self._error = error
        self._queue.put(None)
        del standard_input
