"""Driving an engine by hand, without its thread."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from prometheus_client import CollectorRegistry

from service.engine.engine import Engine
from service.engine.lifecycle import Lifecycle
from service.engine.work import Chunk, ChunkOutcome, Selection, Work
from service.models.runtime import Network, content_hash
from service.models.version import Version
from service.session_ref import SessionRef
from service.settings import Settings
from service.spec import Float32
from service.telemetry.metrics import Metrics
from tests.support.tiny_models import ledger

OWNER = "ipv4:127.0.0.1"

LEDGER = Version("ledger", content_hash(ledger()))
"""The version that engines of these tests serve."""


def engine(
    network: Network, clock: Callable[[], float], max_turns: int = 2, **changes: Any
) -> Engine:
    """An engine that serves the network as `ledger`, with these settings."""
    settings, metrics = Settings(**changes), Metrics(CollectorRegistry())
    lifecycle = Lifecycle({LEDGER: network}, settings, metrics, clock, clock)
    return Engine(lifecycle, settings, max_turns)


def opened(
    engine: Engine,
    locations: int = 8,
    idle_timeout_seconds: float | None = None,
    owner: str = OWNER,
) -> SessionRef:
    """A new session of the ledger, as its owner names it."""
    view = engine.lifecycle.open(LEDGER, locations, idle_timeout_seconds, owner)
    return SessionRef(view.id, owner, 0)


def chunk(
    session: SessionRef,
    inputs: Sequence[Sequence[float]] | Float32,
    first_step: int | None = None,
    selection: tuple[str, ...] = (),
    top_k: int = 0,
) -> Chunk:
    """A chunk of inputs [steps, X], its values in one row as they come off the wire."""
    values = np.asarray(inputs, np.float32).reshape(-1)
    return Chunk(session, values, first_step, Selection(selection, top_k))


def submitted(engine: Engine, *works: Work) -> None:
    """Submit several works."""
    for work in works:
        engine.submit(work)


def run(engine: Engine) -> list[Work]:
    """Turn until nothing is left to do; what was finished, in order."""
    finished = []
    while engine.busy:
        finished += engine.turn()
        engine.lifecycle.check_integrity()
    return finished


def outputs(work: Work) -> list[list[float]]:
    """The outputs of a finished chunk; fails if it has an error."""
    assert work.error is None, work.error
    assert isinstance(work.outcome, ChunkOutcome)
    values: list[list[float]] = work.outcome.outputs.tolist()
    return values


def stepped(engine: Engine, *works: Chunk) -> list[list[list[float]]]:
    """Submit chunks, run them, and give their outputs."""
    submitted(engine, *works)
    run(engine)
    return [outputs(work) for work in works]
