"""Tokens for tests: the lines of a tokens file, and the metadata of a call."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path


def token_line(name: str, token: str, *scopes: str, **more: str) -> str:
    """A line that lets in that token."""
    digest = hashlib.sha256(token.encode()).hexdigest()
    return json.dumps({"principal": name, "scopes": scopes, "sha256": digest, **more}) + "\n"


def write(file: Path, text: str) -> None:
    """Write over a file; for tests on the event loop, which nothing else waits for."""
    file.write_text(text)


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    """The metadata of a call with that token."""
    return (("authorization", f"Bearer {token}"),)
