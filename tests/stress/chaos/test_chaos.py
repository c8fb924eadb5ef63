"""Sessions while replicas, store and connections break: every output is the undisturbed one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.stress.chaos.report import is_sound, table
from tests.stress.chaos.trial import trial


@pytest.mark.slow
@pytest.mark.timeout(300)  # what is interrupted at the end may take its time to resume
@pytest.mark.parametrize(
    ("kind", "seed"), [("valkey", 7), pytest.param("directory", 8, marks=pytest.mark.long)]
)
async def test_chaos_loses_no_session_and_changes_no_output(
    tmp_path: Path, kind: str, seed: int
) -> None:
    """In a short run, all replicas stop cleanly and a new one goes on with every session."""
    tally = await trial(tmp_path, seed, 12.0, replicas=2, kind=kind)
    assert is_sound(tally), table(tally)
    assert tally.compared > 1_000
    assert tally.resume_seconds
    assert sum(tally.faults.values()) > 10
