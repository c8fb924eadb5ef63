"""The identity of a model's version, which is the same on every replica that has its file."""

from __future__ import annotations

from typing import NamedTuple


class Version(NamedTuple):
    """One content of a model's file. A session stays on the version that it was opened on."""

    model: str
    content_hash: str
    """SHA-256 of the ONNX file, in hexadecimal."""
