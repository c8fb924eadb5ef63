"""How late the event loop is: what everything on it waits for when it is overloaded."""

from __future__ import annotations

import asyncio

from prometheus_client import Histogram

INTERVAL_SECONDS = 0.1


class LagMeter:
    """Sets a timer ten times a second and notes how late it is called."""

    def __init__(self, lag_seconds: Histogram) -> None:
        """Measure the running event loop from now on, until stopped."""
        self._loop = asyncio.get_running_loop()
        self._lag_seconds = lag_seconds
        self._timer = self._loop.call_later(INTERVAL_SECONDS, self._measure)

    def stop(self) -> None:
        """Measure no more."""
        self._timer.cancel()

    def _measure(self) -> None:
        late = self._loop.time() - self._timer.when()
        # The loop calls timers that are due within the resolution of its clock.
        self._lag_seconds.observe(max(0.0, late))
        self._timer = self._loop.call_later(INTERVAL_SECONDS, self._measure)
