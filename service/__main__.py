"""`python -m service`: serve; `python -m service.probe` asks whether a server is ready."""

from __future__ import annotations

import asyncio
import resource
import sys
from contextlib import suppress

from service.errors import FileInvalid, ModelInvalid
from service.server import serve
from service.settings import Settings
from service.telemetry import logs


def main() -> int:
    """Read the settings and serve; the exit status."""
    settings = Settings.from_command_line(sys.argv[1:])
    logs.set_up(settings.log_level)
    _take_files()
    try:
        return asyncio.run(serve(settings))
    except (FileInvalid, ModelInvalid, OSError, RuntimeError) as error:
        print(f"cannot serve: {error}", file=sys.stderr)
        return 1


def _take_files() -> None:
    """Let connections have as many files as the system allows; a shell's limit is often 1024."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # macOS says unlimited, and means less
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


if __name__ == "__main__":
    sys.exit(main())
