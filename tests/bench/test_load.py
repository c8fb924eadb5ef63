"""The load generator against a real server."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path

import pytest

from bench import __main__ as command_line
from bench import load, sleepers
from bench.messages import MODEL
from bench.row import ROOT
from service.auth.principal import READ, STEP
from service.engine.turn import Turn
from tests.conftest import Serve
from tests.support.served import MODELS
from tests.support.tokens import token_line


async def test_sessions_are_closed_after_a_measurement(serve: Serve) -> None:
    """After a measurement, the server has no open session."""
    async with serve(models_dir=MODELS, models=MODEL) as running:
        measured = await load.multiplexed(running.address, 5, 4, seconds=0.05)
        assert measured["steps/s"] > 0
        assert running.metric("ntm_sessions_opened_total", model=MODEL) == 5
        assert running.metric("ntm_sessions", model=MODEL) == 0


async def test_a_lone_session_and_the_others_are_two_principals(
    serve: Serve, tmp_path: Path
) -> None:
    """Both loads use their own tokens, and close their sessions."""
    tokens = tmp_path / "tokens.jsonl"
    tokens.write_text(
        token_line("one", "tok-one", READ, STEP) + token_line("many", "tok-many", READ, STEP)
    )
    options = {"models_dir": MODELS, "models": MODEL, "tokens_file": str(tokens)}
    async with serve(**options, max_sessions_per_principal=70) as running:
        measured = await load.lone(running.address, 0.1, 70, 4, "tok-one", "tok-many")
        assert measured["p50, us"] > 0
        assert running.metric("ntm_sessions_opened_total", model=MODEL) == 71
        assert running.metric("ntm_sessions", model=MODEL) == 0


async def test_a_step_that_fails_ends_the_measurement(serve: Serve) -> None:
    """A load whose steps are refused fails instead of counting them."""
    async with serve(models_dir=MODELS, models=MODEL, max_chunk_steps=4) as running:
        with pytest.raises(RuntimeError, match="a step failed"):
            await load.multiplexed(running.address, 2, 5, seconds=0.05)


async def test_a_stall_is_charged_to_every_step_that_was_due(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps fall due while a run hangs, and the time of each counts from when it was due."""
    gate, run = threading.Event(), Turn.run

    def held(turn: Turn) -> None:
        assert gate.wait(10)
        run(turn)

    monkeypatch.setattr(Turn, "run", held)
    monkeypatch.setattr("service.engine.engine.SHORT_TURN_BYTES", -1)
    async with serve(models_dir=MODELS, models=MODEL) as running:
        asyncio.get_running_loop().call_later(0.4, gate.set)
        measured = await load.open_loop(running.address, 1, rate=200, seconds=0.4)
        # Due evenly over the 0.4 s of the stall: half of them for more than 0.1 s of it.
        assert measured["p50, us"] > 100_000
        assert measured["p99.9, us"] < 10_000_000


@pytest.mark.slow
def test_a_row_of_the_client_runs_from_end_to_end(tmp_path: Path) -> None:
    """Rows of two checkouts come from servers and load generators in processes of their own."""
    files = [f"--json={tmp_path / 'rows.json'}", f"--plot={tmp_path / 'rows.png'}"]
    options = ["--rounds=1", f"--against={ROOT}", *files]
    assert command_line.main(["client-step", *options]) == 0
    found = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert [row["name"] for row in found] == ["client-step", "client-step-earlier"]
    assert all(row["ratio"] > 0 for row in found)


@pytest.mark.slow
def test_a_benchmark_runs_from_end_to_end(tmp_path: Path) -> None:
    """A row comes from a server, an echo and a load generator in processes of their own."""
    files = [f"--json={tmp_path / 'rows.json'}", f"--plot={tmp_path / 'rows.png'}"]
    assert command_line.main(["step-latency", "--rounds=1", *files]) == 0
    (found,) = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert found["ratio"] > 0
    assert found["samples"]["step, p50, us"][0] > found["samples"]["bare run, us"][0]


# Of those at once, one may wait for the store while the others go on: the more there are, the more
# sleepers it takes that it does not meet the one that it is putting to sleep.
@pytest.mark.parametrize(("at_once", "sessions", "wakings"), [(1, 48, 40), (4, 192, 120)])
async def test_each_waking_is_of_a_sleeper(
    serve: Serve, tmp_path: Path, at_once: int, sessions: int, wakings: int
) -> None:
    """The next one is the one that was woken longest ago, so that it is asleep again by then."""
    store = {"store": f"directory:{tmp_path}", "store_sync": "no", "durability": "none"}
    async with serve(models_dir=MODELS, models=MODEL, max_awake_sessions=8, **store) as running:
        try:
            opened = await sleepers.open_idle(running.address, sessions)
            before = running.metric("ntm_wakes_total", model=MODEL, source="here")
            measured = await sleepers.wakings(running.address, wakings, at_once=at_once)
            woken = running.metric("ntm_wakes_total", model=MODEL, source="here") - before
        finally:
            await sleepers.live[0].close()
            sleepers.live.clear()
    assert woken == wakings
    assert min(opened["opened/s"], opened["first steps/s"], measured["wakes/s"]) > 0


async def test_wakings_go_on_at_their_rate_while_something_else_is_measured(serve: Serve) -> None:
    """The server makes the steps of the wakings and of the other load."""
    async with serve(models_dir=MODELS, models=MODEL) as running:
        try:
            await sleepers.open_idle(running.address, 4)
            before = running.metric("ntm_steps_total", model=MODEL)
            await load.among_wakings(running.address, 20, "round_trips", count=400)
            made = running.metric("ntm_steps_total", model=MODEL) - before
        finally:
            await sleepers.live[0].close()
            sleepers.live.clear()
    assert made > 500  # count and a quarter to warm up, and others
