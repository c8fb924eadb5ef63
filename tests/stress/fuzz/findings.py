"""Findings, as a process that fuzzes tells them to the one that started it."""

from __future__ import annotations

import json
import traceback

FINDING = "FINDING "
"""Starts a line of output that tells of an error, as JSON."""


class Findings:
    """Tells of each error once for each place where it is raised."""

    def __init__(self) -> None:
        """Nothing was found yet."""
        self._places: set[str] = set()

    def tell(self, error: Exception) -> None:
        """Print the error, and the value that led to it, unless it is known from that place."""
        frames = traceback.extract_tb(error.__traceback__)
        ours = [frame for frame in frames if "/service/" in frame.filename] or frames
        place = f"{type(error).__name__} at {ours[-1].filename}:{ours[-1].lineno}"
        if place not in self._places:
            self._places.add(place)
            notes = "\n".join(getattr(error, "__notes__", ()))
            told = {"place": place, "error": str(error)[:2000], "with": notes}
            print(FINDING + json.dumps(told), flush=True)
