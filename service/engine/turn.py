"""A turn: one run of the network for a batch of sessions, and its results."""

from __future__ import annotations

import logging
import time

import numpy as np

from service.engine.sessions import Session
from service.models.bound_run import BoundRun
from service.spec import Array, Float32

log = logging.getLogger(__name__)


class Turn:
    """
    Some ticks of a batch of sessions, ready to run.

    Any thread may run it before the engine commits it: the run touches nothing but the rows of its
    own sessions in the slab.
    """

    def __init__(
        self, sessions: list[Session], bound: BoundRun, ticks: int, buffers: int, *, short: bool
    ) -> None:
        """Fill the buffers with the next steps of each session's chunk."""
        self.sessions = sessions
        self.ticks = ticks
        self.buffers = buffers
        """The number of the buffers that no other turn uses until it is committed."""
        self.short = short
        """Whether the run is shorter than handing it to a thread and back."""
        self.started_seconds = 0.0
        """When the run began, by the monotonic clock."""
        self.seconds = 0.0
        """How long the run took."""
        self.error: Exception | None = None
        """What the run raised."""
        self.outputs: Array
        """[ticks, batch, ...]."""
        self.traces: dict[str, Float32]
        """By graph output, [ticks, batch, heads, width]."""
        self._bound = bound
        # Rows that pad the batch take the inputs of the last session too.
        rows = len(sessions)
        if rows == 1:  # fills all rows by one assignment; a lone step waits for nothing else
            chunk = sessions[0].chunk
            bound.inputs[:] = chunk.inputs[chunk.done : chunk.done + ticks, None]
            bound.seat([sessions[0].slot])
            return
        chunks = [session.chunk for session in sessions]
        columns = [chunk.inputs[chunk.done : chunk.done + ticks, None] for chunk in chunks]
        np.concatenate(columns, axis=1, out=bound.inputs[:, :rows])
        bound.inputs[:, rows:] = bound.inputs[:, rows - 1 : rows]
        bound.seat([session.slot for session in sessions])

    @property
    def padding(self) -> int:
        """The number of rows that pad the batch."""
        return len(self._bound.slots) - len(self.sessions)

    @property
    def may_be_written(self) -> bool:
        """Whether a run that failed may have written some of the rows."""
        return self._bound.may_be_written

    def run(self) -> None:
        """Run the network and take the results out of the buffers. Raises nothing."""
        self.started_seconds = time.monotonic()
        try:
            self._bound.run()
        except Exception as error:
            log.exception("run failed", extra={"sessions": len(self.sessions)})
            self.error = error
            return
        self.seconds = time.monotonic() - self.started_seconds
        self.outputs = self._bound.output.copy()
        self.traces = {name: array.copy() for name, array in self._bound.traces.items()}
