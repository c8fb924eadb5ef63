"""Nothing that comes from outside leads to an error that is not documented, or disturbs others."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
from hypothesis import HealthCheck, given, settings

from tests.stress.fuzz.__main__ import fuzz
from tests.stress.fuzz.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_whatever_is_sent_only_documented_errors_come_out(name: str) -> None:
    """And what each harness demands besides: undisturbed canary, integrity, usable results."""
    target = TARGETS[name]
    with target.harness() as check:
        sent = settings(
            max_examples=target.examples,
            deadline=None,
            # Alterations of whole messages draw much; that they are slow is no fault.
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        )(given(target.strategy)(check))
        sent()


@pytest.mark.slow
@pytest.mark.skipif(find_spec("atheris") is None, reason="atheris is not made for this Python")
@pytest.mark.parametrize("name", ["settings", "calls"])
def test_a_target_is_fuzzed_guided_by_coverage(name: str) -> None:
    """The command's way runs a target, finds new ways through the code, and no fault."""
    outcome = fuzz(name, seconds=3, seed=1)
    assert outcome.findings == []
    assert outcome.executions > 10
    assert outcome.corpus > 1
