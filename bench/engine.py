"""The server's engine without transport."""

from __future__ import annotations

import time

import numpy as np
from prometheus_client import CollectorRegistry

from service.engine.engine import Engine
from service.engine.lifecycle import Lifecycle
from service.engine.work import Chunk
from service.models.runtime import Network
from service.models.version import Version
from service.session_ref import SessionRef
from service.settings import Settings
from service.telemetry.metrics import Metrics


class EngineLoad:
    """Sessions of one network that all send chunk after chunk."""

    def __init__(self, network: Network, sessions: int, chunk: int, max_batch: int = 0) -> None:
        """
        Open the sessions, at the model's own number of locations.

        Args:
            chunk: Steps of a chunk.
            max_batch: Sessions of a turn at most; by default as a server's.
        """
        version = Version(network.spec.task, network.content_hash)
        settings = Settings(max_sessions=max(sessions, Settings.max_sessions))
        if max_batch:
            settings = Settings(max_sessions=settings.max_sessions, max_batch=max_batch)
        lifecycle = Lifecycle({version: network}, settings, Metrics(CollectorRegistry()))
        self._engine = Engine(lifecycle, settings)
        locations = network.spec.default_locations
        views = [lifecycle.open(version, locations, None, "bench") for _ in range(sessions)]
        self._sessions = [SessionRef(view.id, "bench", 0) for view in views]
        self._chunk = chunk
        vectors = np.random.default_rng(0).integers(0, 2, (chunk, network.spec.input_width))
        vectors[:, -1] = 0
        self._inputs = vectors.astype(np.float32).reshape(-1)

    def steps_a_second(self, seconds: float) -> float:
        """Return the throughput over whole rounds of one chunk of each session."""
        started, steps = time.perf_counter(), 0
        while time.perf_counter() - started < seconds:
            for session in self._sessions:
                self._engine.submit(Chunk(session, self._inputs, None))
            while self._engine.busy:
                steps += self._chunk * sum(work.error is None for work in self._engine.turn())
        return steps / (time.perf_counter() - started)
