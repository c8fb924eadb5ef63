"""The load of the client library, against a real server."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import client_load, processes
from bench.client_load import MODEL, SESSION_STEPS, WARM_UP_STEPS
from ntm_client import StepResult
from tests.conftest import Serve
from tests.support.served import MODELS

CLIENT = '''
"""A client that makes its steps without a server."""

from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np

AsyncClient = AsyncSession = Session = StepResult = None


def Client(address):
    result = SimpleNamespace(outputs=np.full(8, 0.5), first_step=0)
    session = SimpleNamespace(step=lambda vector: result)
    return nullcontext(SimpleNamespace(create_session=lambda model: nullcontext(session)))
'''


@pytest.mark.parametrize(
    ("work", "arguments", "sessions", "steps"),
    [
        ("step", {"count": 8}, 1, 8 + 2),
        ("long", {"steps": 700}, 1, WARM_UP_STEPS + 700),
        ("short", {"count": 4}, 5, 5 * SESSION_STEPS),
    ],
)
async def test_so_many_steps_are_made_as_are_asked_for(
    serve: Serve, work: str, arguments: dict[str, Any], sessions: int, steps: int
) -> None:
    """The server makes the steps and those of the warm-up, and has no open session afterwards."""
    async with serve(models_dir=MODELS, models=MODEL) as running:
        measured = await asyncio.to_thread(client_load.WORK[work], running.address, **arguments)
        assert measured["steps/s"] > 0
        assert running.metric("ntm_steps_total", model=MODEL) == steps
        assert running.metric("ntm_sessions_opened_total", model=MODEL) == sessions
        assert running.metric("ntm_sessions", model=MODEL) == 0


@pytest.mark.parametrize(
    ("work", "chunk"), [("tasks", {}), ("threads", {}), ("stream", {"steps": 4})]
)
async def test_sessions_step_side_by_side_until_the_time_is_over(
    serve: Serve, work: str, chunk: dict[str, int]
) -> None:
    """No more steps are counted than the server made, and it has no open session afterwards."""
    seconds = 0.2
    async with serve(models_dir=MODELS, models=MODEL) as running:
        measured = await asyncio.to_thread(
            client_load.WORK[work], running.address, sessions=5, seconds=seconds, **chunk
        )
        made = running.metric("ntm_steps_total", model=MODEL)
        assert made is not None
        assert 0 < measured["steps/s"] * seconds <= made
        assert running.metric("ntm_sessions_opened_total", model=MODEL) == 5
        assert running.metric("ntm_sessions", model=MODEL) == 0


def test_steps_of_the_warm_up_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two results of four steps in the second after the warm-up make eight steps a second."""
    now = [100.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    result = StepResult(first_step=0, outputs=np.zeros((4, 8), np.float32), traces={}, locations={})
    count = client_load.Count(1.0)
    for moment in (100.1, 100.4, 100.6, 101.4):
        now[0] = moment
        assert count.goes_on()
        count.add(result)
    now[0] = 101.5
    assert not count.goes_on()
    assert count.measured() == {"steps/s": pytest.approx(8.0)}


def test_an_output_that_is_no_number_ends_the_measurement() -> None:
    """A step whose output is not a number is not counted."""
    outputs = np.array([0.0, np.nan], np.float32)
    result = StepResult(first_step=7, outputs=outputs, traces={}, locations={})
    with pytest.raises(RuntimeError, match="no numbers from step 7"):
        client_load.Count(1.0).add(result)


def test_the_client_is_that_of_the_checkout(tmp_path: Path) -> None:
    """The process imports the client library of the checkout that it is given."""
    package = tmp_path / "client" / "ntm_client"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(CLIENT)
    with processes.client_load(tmp_path) as load:
        assert load("step", address="nowhere", count=4)["steps/s"] > 0
        assert load.cpu_seconds() > 0
