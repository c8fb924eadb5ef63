"""The reference pages, and the function that writes each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from docs.generate import api, client, commands, errors, metrics, settings

FOLDER = Path(__file__).parents[1] / "reference"

PAGES: dict[str, Callable[[], str]] = {
    "settings.md": settings.page,
    "metrics.md": metrics.page,
    "errors.md": errors.page,
    "api.md": api.page,
    "client.md": client.page,
    "command-line.md": commands.page,
}
"""The text of each page, by its file's name in docs/reference."""
