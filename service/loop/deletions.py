"""Deletions: deletes ended sessions from the store, and retries while the store does not answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager

from service.engine.effects import Ended
from service.stores.base import Store, StoreUnavailable

log = logging.getLogger(__name__)

MAX_LEFT = 10_000
"""
The largest number of deletions that wait for the store. Beyond it the oldest are dropped, and their
records expire.
"""

_AT_ONCE = 64


class Deletions:
    """
    Deletes sessions from the store that were deleted or have expired.

    A deletion that the store does not answer is kept here until `retry` succeeds with it.
    """

    def __init__(
        self, store: Store, timed: Callable[[], AbstractContextManager[None]], kept_seconds: float
    ) -> None:
        """
        Delete sessions from this store.

        Args:
            store: it refuses saves of a deleted session for the session's idle timeout and
                `kept_seconds`, so that a save that comes late does not bring it back.
            timed: measures the time of a deletion.
            kept_seconds: how long a deletion is remembered beyond the session's idle timeout.
        """
        self._store = store
        self._timed = timed
        self._kept_seconds = kept_seconds
        self._left: dict[str, Ended] = {}

    def __contains__(self, session_id: str) -> bool:
        """Whether a session's deletion waits for the store."""
        return session_id in self._left

    def __len__(self) -> int:
        """The number of deletions that wait for the store. Safe from any thread."""
        return len(self._left)

    async def delete(self, ended: Ended) -> None:
        """Delete a session from the store now, or keep it for `retry`."""
        seconds = ended.idle_timeout_seconds + self._kept_seconds
        try:
            with self._timed():
                await self._store.delete(ended.session_id, ended.epoch, seconds)
            self._left.pop(ended.session_id, None)
        except StoreUnavailable:
            self._left[ended.session_id] = ended
            if len(self._left) > MAX_LEFT:
                del self._left[next(iter(self._left))]
                log.warning("a deletion was given up: the store has not answered for too long")

    async def again(self, session_id: str) -> None:
        """Try a deletion that waits for the store again, now."""
        if ended := self._left.get(session_id):
            await self.delete(ended)

    async def retry(self) -> None:
        """
        Try the deletions that are left again, the oldest first, until the store does not answer.
        """
        waiting = list(self._left.values())
        for start in range(0, len(waiting), _AT_ONCE):
            # A single deletion shows whether the store answers, before 63 more are tried.
            for batch in (waiting[start : start + 1], waiting[start + 1 : start + _AT_ONCE]):
                await asyncio.gather(*map(self.delete, batch))
                if any(each.session_id in self._left for each in batch):
                    return
