"""Nothing that comes from outside leads to an error that is not documented, or disturbs others."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings

from tests.fuzz.targets import TARGETS


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
