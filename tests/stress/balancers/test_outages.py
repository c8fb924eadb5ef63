"""A short form of the long run: `python -m tests.stress.balancers.outages envoy`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.stress.balancers.balancing import ENVOY
from tests.stress.balancers.outages import outages, table


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif(ENVOY.path is None, reason=f"envoy is not installed: {ENVOY.install}")
async def test_killed_replicas_change_no_output_and_move_no_other_session(tmp_path: Path) -> None:
    """Behind Envoy, under clients of both policies, whose sessions all go on elsewhere."""
    found = await outages(ENVOY, tmp_path, clients=24, kills=2, every=1.0, pace=0.1, seed=1)

    assert found.is_sound, table(found)
    assert found.kills == 2
    assert found.sessions == 24
    assert found.compared > 10_000
    assert 0 < found.survivors < 2 * 24
    assert len(found.resumed.after) == 2 * 24 - found.survivors
