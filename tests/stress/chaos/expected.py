"""What every session is to answer: computed on an engine of this process, undisturbed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from prometheus_client import CollectorRegistry

from service.engine.engine import Engine
from service.engine.lifecycle import Lifecycle
from service.engine.work import Chunk, ChunkOutcome
from service.models.runtime import Network
from service.models.version import Version
from service.session_ref import SessionRef
from service.settings import Settings
from service.spec import Float32
from service.telemetry.metrics import Metrics

STEPS = 240
"""Steps of a session that goes to its end."""

AFTERWARDS = 8
"""Steps beyond that, with which the audit shows that a session goes on."""

MODELS = ("ledger", "copy-ntm-ff")


@dataclass(frozen=True, eq=False)
class Expected:
    """A session's inputs, and the outputs that it must give, bit for bit."""

    number: int
    model: str
    inputs: Float32
    outputs: Float32


class Reference:
    """Knows every session's inputs and outputs from the seed and its number."""

    def __init__(self, models_dir: Path, seed: int) -> None:
        """Load the models of that folder."""
        self._seed = seed
        self._networks = {
            name: Network((models_dir / name / "model.onnx").read_bytes(), "cpu") for name in MODELS
        }
        networks = {self._version(name): network for name, network in self._networks.items()}
        metrics = Metrics(CollectorRegistry())
        settings = Settings()
        self._engine = Engine(Lifecycle(networks, settings, metrics), settings)

    def expected(self, number: int) -> Expected:
        """The session of that number; takes some tens of milliseconds."""
        model = MODELS[number % len(MODELS)]
        width = self._networks[model].spec.input_width
        chance = np.random.default_rng([self._seed, number])
        inputs = chance.random((STEPS + AFTERWARDS, width), np.float32)
        view = self._engine.lifecycle.open(self._version(model), 0, None, "reference")
        session = SessionRef(view.id, "reference", 0)
        chunk = Chunk(session, inputs.reshape(-1), 0)
        self._engine.submit(chunk)
        while self._engine.busy:
            self._engine.turn()
        self._engine.lifecycle.delete(session)
        assert isinstance(chunk.outcome, ChunkOutcome), chunk.error
        return Expected(number, model, inputs, chunk.outcome.outputs.copy())

    def _version(self, model: str) -> Version:
        return Version(model, self._networks[model].content_hash)
