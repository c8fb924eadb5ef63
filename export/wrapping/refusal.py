"""Why a file cannot be wrapped, in one sentence that says what to change."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from service.errors import one_line


class FileRefused(ValueError):
    """A file, or the description of how to step it, is wrong; the message says what to change."""


@contextmanager
def tried(what: str, then: str) -> Iterator[None]:
    """Say of an error of onnx, onnxscript or onnxruntime what was tried, and what to do."""
    try:
        yield
    except FileRefused:
        raise
    # Each of these libraries raises classes of its own, which share no other base. All mean that
    # it cannot do with the file what was tried.
    except Exception as error:
        raise FileRefused(f"{what} ({one_line(error).rstrip('.')}); {then}") from error
