"""Keeps the inputs of a session's last steps, so that lost steps can be made again."""

from __future__ import annotations

import zlib
from array import array

CHECK_BYTES = 4


class History:
    """The inputs of a session's last steps, and checksums of their outputs."""

    def __init__(self, start: int, step_bytes: int, max_bytes: int) -> None:
        """
        Keep the steps from `start` on, each with `step_bytes` of inputs, and at most `max_bytes` of
        them, the latest ones.
        """
        self.start = start
        """The index of the first step that is kept."""
        self.dropped = False
        """Whether steps were dropped for lack of room since the last restart."""
        self._step_bytes = step_bytes
        self._max_bytes = max_bytes
        # The arrays are flat, because CPython cuts off the front of a bytearray without moving the
        # rest.
        self._inputs = bytearray()
        self._checks = bytearray()

    @property
    def end(self) -> int:
        """The index of the step after the last one."""
        return self.start + len(self._inputs) // self._step_bytes

    def covers(self, step: int) -> bool:
        """Whether all steps from this one on are kept."""
        return self.start <= step <= self.end

    def add(self, inputs: bytes, checks: bytes) -> bool:
        """Append steps, and return whether older ones were dropped to make room."""
        self._inputs += inputs
        self._checks += checks
        excess = len(self._inputs) - self._max_bytes
        if excess <= 0:
            return False
        self.forget(self.start - (-excess // self._step_bytes))
        self.dropped = True
        return True

    def forget(self, step: int) -> None:
        """Drop the steps before this one."""
        steps = min(step, self.end) - self.start
        if steps > 0:
            del self._inputs[: steps * self._step_bytes]
            del self._checks[: steps * CHECK_BYTES]
            self.start += steps

    def restart(self, step: int) -> None:
        """Drop all steps; `step` comes next."""
        self._inputs.clear()
        self._checks.clear()
        self.start = step
        self.dropped = False

    def inputs(self, step: int, max_steps: int) -> bytes:
        """The inputs of at most `max_steps` steps from `step` on."""
        first = (step - self.start) * self._step_bytes
        return bytes(self._inputs[first : first + max_steps * self._step_bytes])

    def difference(self, step: int, checks: bytes) -> int | None:
        """
        The first step from `step` on whose outputs differ from the kept checksums; None if none
        does.
        """
        first = (step - self.start) * CHECK_BYTES
        kept = bytes(self._checks[first : first + len(checks)])
        if kept == checks:
            return None
        return step + next(
            index
            for index in range(len(checks) // CHECK_BYTES)
            if _check(kept, index) != _check(checks, index)
        )


def checks_of(outputs: bytes, step_bytes: int) -> bytes:
    """The CRC-32 of the outputs of each step, four bytes a step."""
    starts = range(0, len(outputs), step_bytes)
    steps = (outputs[first : first + step_bytes] for first in starts)
    return array("I", map(zlib.crc32, steps)).tobytes()


def _check(checks: bytes, index: int) -> bytes:
    return checks[index * CHECK_BYTES : (index + 1) * CHECK_BYTES]
