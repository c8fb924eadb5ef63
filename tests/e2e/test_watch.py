"""`ntm watch`: looks at a session that somebody else steps."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator

import pytest

from ntm_client import AsyncClient
from service.settings import Settings
from tests.conftest import Running, serving
from tests.support.served import MODELS


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    """A server of the models that ship."""
    settings = Settings(models_dir=MODELS, device="cpu", port=0, metrics_port=0)
    async with serving(settings) as running:
        yield running


async def test_watch_follows_a_session_to_its_end(running: Running) -> None:
    """Each look that finds new steps is shown; when the session is deleted, watching ends well."""
    async with AsyncClient(running.address) as client:
        session = await client.create_session("copy-ntm-lstm")
        watch = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "ntm_lab", "watch", session.id),
            *("--server", running.address, "--interval", "0.01"),
            stdout=asyncio.subprocess.PIPE,
        )
        assert watch.stdout is not None
        seen = [(await watch.stdout.readline()).decode()]
        await session.step([[1] * 9, [0] * 9])
        while not seen[-1].startswith("copy-ntm-lstm, step 2"):
            seen.append((await watch.stdout.readline()).decode())
        await session.delete()
        rest = (await watch.stdout.read()).decode()
        status = await watch.wait()

    assert seen[0] == "copy-ntm-lstm, step 0, 128 locations\n"
    assert "write head 1: location 127, focus" in rest
    assert rest.endswith("was deleted; create a new one\n")
    assert status == 0


async def test_watching_is_no_use_of_the_session(running: Running) -> None:
    """A session that is watched expires when nobody steps it."""
    async with AsyncClient(running.address) as client:
        session = await client.create_session("copy-ntm-lstm")
        before = await session.describe()
        watch = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "ntm_lab", "watch", session.id),
            *("--server", running.address, "--once"),
            stdout=asyncio.subprocess.DEVNULL,
        )
        status = await watch.wait()
        after = await session.describe()

    assert status == 0
    assert abs(after.expire_time - before.expire_time).total_seconds() < 0.01
