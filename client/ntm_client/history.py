"""The inputs of a session's last steps, kept to make those again that the server loses."""

from __future__ import annotations

import zlib
from array import array

from ntm_client.chunks import VALUE_BYTES

CHECK_BYTES = 4


class History:
    """Consecutive steps up to a session's next one: their inputs and a check of their outputs."""

    def __init__(self, start: int, input_width: int, max_bytes: int) -> None:
        """Keep the steps from `start` on, the latest inputs of `max_bytes` at most."""
        self.start = start
        """Index of the first step kept."""
        self.dropped = False
        """Whether steps were dropped for lack of room since the last restart."""
        self._step_bytes = input_width * VALUE_BYTES
        self._max_bytes = max_bytes
        # Flat, for CPython cuts the front of a bytearray off without moving the rest.
        self._inputs = bytearray()
        self._checks = bytearray()

    @property
    def end(self) -> int:
        """Index of the step after the last one."""
        return self.start + len(self._inputs) // self._step_bytes

    def covers(self, step: int) -> bool:
        """Whether all steps from that one on are kept."""
        return self.start <= step <= self.end

    def add(self, inputs: bytes, checks: bytes) -> bool:
        """Append steps; whether older ones have had to go for them."""
        self._inputs += inputs
        self._checks += checks
        excess = len(self._inputs) - self._max_bytes
        if excess <= 0:
            return False
        self.forget(self.start - (-excess // self._step_bytes))
        self.dropped = True
        return True

    def forget(self, step: int) -> None:
        """Let go of the steps before that one."""
        steps = min(step, self.end) - self.start
        if steps > 0:
            del self._inputs[: steps * self._step_bytes]
            del self._checks[: steps * CHECK_BYTES]
            self.start += steps

    def restart(self, step: int) -> None:
        """Let go of all; that step comes next."""
        self._inputs.clear()
        self._checks.clear()
        self.start = step
        self.dropped = False

    def inputs(self, step: int, max_steps: int) -> bytes:
        """The inputs of the steps from `step` on, of `max_steps` at most."""
        first = (step - self.start) * self._step_bytes
        return bytes(self._inputs[first : first + max_steps * self._step_bytes])

    def difference(self, step: int, checks: bytes) -> int | None:
        """The first step, from that one on, whose outputs were others; None if there is none."""
        first = (step - self.start) * CHECK_BYTES
        kept = bytes(self._checks[first : first + len(checks)])
        if kept == checks:
            return None
        return step + next(
            index
            for index in range(len(checks) // CHECK_BYTES)
            if _check(kept, index) != _check(checks, index)
        )


def checks_of(outputs: bytes, output_width: int) -> bytes:
    """CRC-32 of the outputs of each step, four bytes a step."""
    size = output_width * VALUE_BYTES
    steps = (outputs[first : first + size] for first in range(0, len(outputs), size))
    return array("I", map(zlib.crc32, steps)).tobytes()


def _check(checks: bytes, index: int) -> bytes:
    return checks[index * CHECK_BYTES : (index + 1) * CHECK_BYTES]
