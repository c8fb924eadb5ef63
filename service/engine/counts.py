"""Counts sessions as they open and close, and every turn, in the metrics."""

from __future__ import annotations

from collections.abc import Sequence

from service.engine.sessions import Asleep, Session
from service.engine.slots import Slots
from service.engine.turn import Turn
from service.engine.work import Chunk
from service.errors import NtmError, SessionDeleted, SessionExpired, SessionFailed, SessionMoved
from service.telemetry.metrics import Metrics

_REASONS: dict[type[NtmError], str] = {
    SessionDeleted: "deleted",
    SessionExpired: "expired",
    SessionFailed: "failed",
    SessionMoved: "moved",
}

SLAB = "slab"
"""The label for the state of sessions that are in a slab."""


class Counts:
    """Counts for one engine; seconds are by the engine's clock."""

    def __init__(self, metrics: Metrics, slots: Slots) -> None:
        """Count in these metrics. Slots are counted whenever the metrics are collected."""
        self._metrics = metrics
        self._slots = slots
        self._models: dict[str, _Model] = {}

    def opened(self, session: Session) -> None:
        """Count a session that was opened."""
        if session.model not in self._models:
            self._watch_slots(session.model)
        self._metrics.sessions_opened.labels(session.model).inc()
        self._metrics.sessions.labels(session.model).inc()
        self._state(session, 1)

    def woken(self, session: Session, *, was_here: bool) -> None:
        """
        Count a session that woke: `was_here` if it slept here, else it comes from another replica.
        """
        if session.model not in self._models:
            self._watch_slots(session.model)
        self._metrics.wakes.labels(session.model, "here" if was_here else "elsewhere").inc()
        self._metrics.sessions.labels(session.model).inc(0 if was_here else 1)
        if was_here:
            self._metrics.sessions_asleep.labels(session.model).dec()
        self._state(session, 1)

    def slept(self, session: Session) -> None:
        """Count a session that went to sleep."""
        self._metrics.sleeps.labels(session.model).inc()
        self._metrics.sessions_asleep.labels(session.model).inc()
        self._state(session, -1)

    def expired(self, asleep: Asleep, lived: float) -> None:
        """Count a session that expired while it slept, `lived` seconds after it was opened."""
        metrics, view = self._metrics, asleep.view
        model = view.model
        metrics.session_idle_seconds.labels(model).observe(view.idle_timeout_seconds)
        metrics.session_lifetime_seconds.labels(model).observe(lived)
        metrics.session_steps.labels(model).observe(view.next_step)
        metrics.sessions_asleep.labels(model).dec()
        metrics.sessions.labels(model).dec()
        metrics.sessions_closed.labels(model, "expired").inc()

    def closed(self, session: Session, why: type[NtmError], now: float, lived: float) -> None:
        """Count a session that was closed, `lived` seconds after it was opened."""
        metrics, model = self._metrics, session.model
        self._state(session, -1)
        metrics.sessions.labels(model).dec()
        metrics.sessions_closed.labels(model, _REASONS[why]).inc()
        metrics.session_lifetime_seconds.labels(model).observe(lived)
        metrics.session_steps.labels(model).observe(session.next_step)
        if why is SessionExpired:
            metrics.session_idle_seconds.labels(model).observe(now - session.used_seconds)

    def admitted(self, session: Session, chunk: Chunk) -> None:
        """Count a chunk that was admitted to its session's queue."""
        if session.next_step and not session.waiting:
            interval = chunk.submitted_seconds - session.used_seconds
            self._model(session.model).interval_seconds.observe_one(interval)
        for name in chunk.selection.names:
            self._metrics.traces.labels(session.model, name).inc()

    def replayed(self, session: Session) -> None:
        """Count a chunk that was answered by a replay."""
        self._metrics.replayed_chunks.labels(session.model).inc()

    def begun(self, session: Session, waited: Sequence[float]) -> None:
        """Count chunks of the session's model that have begun, after these seconds in the queue."""
        self._model(session.model).queue_seconds.observe(waited)

    def committed(self, turn: Turn, chunks: Sequence[Chunk], traced: int) -> None:
        """Count a turn that finished these chunks; `traced` of its steps had traces."""
        model, ticks = self._model(turn.sessions[0].model), turn.ticks
        model.ticks.inc(ticks)
        model.steps.inc(ticks * len(turn.sessions))
        if traced:
            model.traced_steps.inc(traced)
        if turn.padding:
            model.padding_rows.inc(ticks * turn.padding)
        model.batch_rows.observe_one(len(turn.sessions), ticks)
        model.tick_seconds.observe_one(turn.seconds / ticks, ticks)
        for chunk in chunks:
            finished, steps = chunk.finished_seconds, chunk.done
            seconds = finished - chunk.submitted_seconds
            model.chunk_seconds.observe_one(seconds)
            model.run_seconds.observe_one(finished - chunk.begun_seconds)
            model.step_seconds.observe_one(seconds / steps, steps)

    def failed(self, model: str) -> None:
        """Count a run of the model's network that raised an error."""
        self._metrics.failed_runs.labels(model).inc()

    def _state(self, session: Session, sign: int) -> None:
        self._metrics.state_bytes.labels(session.model, SLAB).inc(sign * session.slab.slot_bytes)

    def _model(self, name: str) -> _Model:
        model = self._models.get(name)
        if model is None:
            model = self._models[name] = _Model(self._metrics, name)
        return model

    def _watch_slots(self, model: str) -> None:
        """Count a model's slots when the metrics are collected, which another thread does."""
        metric, slots = self._metrics.slots, self._slots
        metric.labels(model, "taken").set_function(
            lambda: sum(slab.used for slab in slots.of(model))
        )
        metric.labels(model, "free").set_function(
            lambda: sum(slab.capacity - slab.used for slab in slots.of(model))
        )


class _Model:
    """The collectors of one model that every turn counts in, looked up once."""

    def __init__(self, metrics: Metrics, model: str) -> None:
        self.steps = metrics.steps.labels(model)
        self.traced_steps = metrics.traced_steps.labels(model)
        self.ticks = metrics.ticks.labels(model)
        self.tick_seconds = metrics.tick_seconds.labels(model)
        self.batch_rows = metrics.batch_rows.labels(model)
        self.padding_rows = metrics.padding_rows.labels(model)
        self.queue_seconds = metrics.queue_seconds.labels(model)
        self.run_seconds = metrics.run_seconds.labels(model)
        self.chunk_seconds = metrics.chunk_seconds.labels(model)
        self.step_seconds = metrics.step_seconds.labels(model)
        self.interval_seconds = metrics.interval_seconds.labels(model)
