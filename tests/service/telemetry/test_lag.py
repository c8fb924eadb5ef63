"""The event loop's lag is measured by timers."""

from __future__ import annotations

import asyncio
import time

from prometheus_client import CollectorRegistry, Histogram

from service.telemetry.lag import INTERVAL_SECONDS, LagMeter


class Watched(Histogram):
    """Tells when something was observed."""

    observed: asyncio.Event

    def observe(self, amount: float, exemplar: dict[str, str] | None = None) -> None:
        """Count it, and tell."""
        super().observe(amount, exemplar)
        self.observed.set()


async def test_a_busy_event_loop_is_late() -> None:
    """When something holds the loop for three intervals, one timer is late by two or more."""
    registry = CollectorRegistry()
    histogram = Watched("lag", "Lag.", registry=registry)
    histogram.observed = asyncio.Event()
    lag = LagMeter(histogram)
    busy_until = time.monotonic() + 3 * INTERVAL_SECONDS
    while time.monotonic() < busy_until:
        pass
    await asyncio.wait_for(histogram.observed.wait(), 10)
    lag.stop()

    assert registry.get_sample_value("lag_count") == 1
    assert (registry.get_sample_value("lag_sum") or 0) >= 2 * INTERVAL_SECONDS
