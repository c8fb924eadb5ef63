"""Deletions: sessions that the store is to forget, again and again until it answers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from service.engine.sessions import Forgotten
from service.stores.base import Store, StoreUnavailable

log = logging.getLogger(__name__)

MOST_LEFT = 10_000
"""Deletions that wait for the store; the oldest are given up first, and end with their time."""

_AT_ONCE = 64


class Deletions:
    """
    Has the store forget sessions that were deleted or have expired.

    What it does not answer to is kept here, and asked for again by `retry`.
    """

    def __init__(
        self, store: Store, timed: Callable[[], AbstractContextManager[None]], kept_seconds: float
    ) -> None:
        """`timed` measures each; what comes late is refused for a timeout and so many seconds."""
        self._store = store
        self._timed = timed
        self._kept_seconds = kept_seconds
        self._left: dict[str, Forgotten] = {}

    def __len__(self) -> int:
        """How many wait for the store. Any thread may ask."""
        return len(self._left)

    async def delete(self, forgotten: Forgotten) -> None:
        """Have the store forget a session now, or keep it for `retry`."""
        seconds = forgotten.idle_timeout_seconds + self._kept_seconds
        try:
            with self._timed():
                await self._store.delete(forgotten.session_id, forgotten.epoch, seconds)
        except StoreUnavailable:
            self._left[forgotten.session_id] = forgotten
            if len(self._left) > MOST_LEFT:
                del self._left[next(iter(self._left))]
                log.warning("a deletion was given up: the store has not answered for too long")

    async def retry(self) -> None:
        """Ask for all that is left once more, the oldest first, as long as the store answers."""
        waiting = list(self._left.values())
        for start in range(0, len(waiting), _AT_ONCE):
            # The first alone shows whether it answers.
            for batch in (waiting[start : start + 1], waiting[start + 1 : start + _AT_ONCE]):
                await self._delete(batch)
                if any(each.session_id in self._left for each in batch):
                    return

    async def _delete(self, batch: Sequence[Forgotten]) -> None:
        for each in batch:
            self._left.pop(each.session_id, None)
        await asyncio.gather(*map(self.delete, batch))
