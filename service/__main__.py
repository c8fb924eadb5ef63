"""The command `python -m service`, which serves."""

from __future__ import annotations

import asyncio
import logging
import resource
import sys
from contextlib import suppress

from ntm import versions
from ntm.versions import LibraryUnfit
from service.errors import FileInvalid, ModelInvalid
from service.settings import Settings, unknown_variables
from service.telemetry import logs

log = logging.getLogger(__name__)


def main() -> int:
    """Read the settings and serve; return the exit status."""
    settings = Settings.from_command_line(sys.argv[1:])
    # After the flags are read, so that --help and mistakes do not wait a second for onnxruntime.
    try:
        versions.check()
        from service.server import serve
    except LibraryUnfit as error:
        return _failed(error)
    logs.set_up(settings.log_level)
    unknown = unknown_variables()
    if unknown:
        # The names alone, because a value may be a password.
        log.warning("variables without a setting", extra={"variables": unknown})
    _raise_file_limit()
    try:
        return asyncio.run(serve(settings))
    except (FileInvalid, ModelInvalid, OSError, RuntimeError) as error:
        return _failed(error)


def _failed(error: Exception) -> int:
    print(f"cannot serve: {error}", file=sys.stderr)
    return 1


def _raise_file_limit() -> None:
    """Allow as many open files as the system does; each connection takes one, shells allow 1024."""
    _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # macOS reports no limit and enforces one
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))


if __name__ == "__main__":
    sys.exit(main())
