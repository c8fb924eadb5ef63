"""Follows files of models that are added, replaced or removed while the server runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress

from service.errors import ModelInvalid
from service.models.catalogue import Catalogue
from service.models.folder import Change, ModelFile
from service.models.version import Version
from service.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
"""The time between two looks at the folder of models."""


class Reloads:
    """
    Looks at the folder of models every second, on the event loop; slow work is on a thread.

    If the current version is loaded, a new one replaces it only once it is loaded too, so that no
    session waits for it. A version that cannot be loaded changes nothing.
    """

    def __init__(
        self, catalogue: Catalogue, has_sessions: Callable[[Version], bool], metrics: Metrics
    ) -> None:
        """Keep the catalogue up to date; versions that have sessions stay in it."""
        self._catalogue = catalogue
        self._has_sessions = has_sessions
        self._metrics = metrics
        self._is_readable = True
        self._looking = asyncio.create_task(self._look_again_and_again())

    async def stop(self) -> None:
        """Stop looking. A network that is being loaded is thrown away."""
        self._looking.cancel()
        with suppress(asyncio.CancelledError):
            await self._looking

    async def look(self) -> None:
        """Apply the changes in the folder, and drop versions that are no longer used."""
        try:
            changes = await asyncio.to_thread(self._catalogue.folder.look)
        except OSError as error:
            if self._is_readable:
                log.error("models cannot be looked at", extra={"why": str(error)})
            self._is_readable = False
            return
        self._is_readable = True
        for change in changes:
            await self._take(change)
        await self._catalogue.tidy(self._has_sessions)

    async def _look_again_and_again(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self.look()
            except Exception:
                log.exception("models could not be looked at")

    async def _take(self, change: Change) -> None:
        place, found = change
        catalogue = self._catalogue
        fields = {"model": place.model, "file": place.shown}
        if isinstance(found, ModelFile):
            if catalogue.at(place) == found.version:
                return  # another file of the same content
            if place.is_current and catalogue.is_needed(place.model):
                # New sessions follow once it is loaded.
                catalogue.hold(found)
                try:
                    await catalogue.load(found.version)
                except ModelInvalid as error:
                    log.error("model file not taken over", extra={**fields, "why": error.message})
                    return
        catalogue.take(change)
        if not isinstance(found, ModelInvalid):
            outcome = "removed" if found is None else "taken"
            self._metrics.model_reloads.labels(place.model, outcome).inc()
            log.info(f"model file {outcome}", extra=fields)
