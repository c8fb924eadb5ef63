"""A server under every attack at once answers whom it serves, and counts whom it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.stress.flood.attack import ATTACKS
from tests.stress.flood.report import faults
from tests.stress.flood.trial import trial


@pytest.mark.slow
@pytest.mark.timeout(300)  # nineteen processes start, and all have to end
async def test_a_flood_disturbs_no_session(tmp_path: Path) -> None:
    """No output is wrong or missing, every reason is counted, and no connection stays open."""
    outcome = await trial(list(ATTACKS), 3.0, 0.5, tmp_path / "server.log")
    assert outcome.wrong == 0
    assert len(outcome.during) == 150
    assert {"wrong", "counted", "files"} & set(faults(outcome)) == set()
    for name, tally in outcome.tallies.items():
        assert tally.attempts > 0, f"{name} did nothing"
