"""The command `python -m service`, which serves."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress

# The rest is imported after signals are heard, because it takes a second.


def main() -> int:
    """Read the settings and serve; return the exit status."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    try:
        return _main()
    except ImportError as error:
        from service.errors import missing_package

        print(f"cannot serve: {missing_package(error)}", file=sys.stderr)
        return 1
    except Exception as error:
        from google.protobuf.runtime_version import VersionError

        from service.errors import one_line

        if not isinstance(error, VersionError):
            raise
        print(
            f"cannot serve: two installed packages do not fit each other ({one_line(error)}); "
            "install the server in an environment of its own",
            file=sys.stderr,
        )
        return 1


def _main() -> int:
    from ntm import versions
    from service.settings import Settings, unknown_variables

    settings = Settings.from_command_line(sys.argv[1:])
    try:
        versions.check(versions.SERVER_NEEDS)
    except versions.LibraryUnfit as error:
        print(f"cannot serve: {error}", file=sys.stderr)
        return 1
    # After the flags are read, so that --help and mistakes do not wait for onnxruntime.
    import asyncio
    import logging

    import numpy  # noqa: F401 - without it, onnxruntime would print a traceback of its own

    from service.errors import FileInvalid, ModelInvalid, one_line
    from service.rpc.queue_loop import QueueLoop
    from service.server import serve
    from service.telemetry import logs

    logs.set_up(settings.log_level)
    unknown = unknown_variables()
    if unknown:
        # The names alone, because a value may be a password.
        logging.getLogger(__name__).warning(
            "variables without a setting", extra={"variables": unknown}
        )
    _raise_file_limit()
    try:
        with asyncio.Runner(loop_factory=QueueLoop) as runner:
            return runner.run(serve(settings))
    except (FileInvalid, ModelInvalid, OSError, RuntimeError) as error:
        print(f"cannot serve: {one_line(error)}", file=sys.stderr)
        return 1


def _end(number: int, _: object) -> None:
    """
    End the process: a server that does not serve yet has nothing to finish. `serve` replaces this.

    It does not unwind, because a thread may be loading a model, or waiting for a disk. The first
    process of a container would not even hear a signal that it does not handle.
    """
    os.write(2, f"{signal.Signals(number).name} came before the server served\n".encode())
    os._exit(0)


def _raise_file_limit() -> None:
    """Allow as many open files as the system does; each connection takes one, shells allow 1024."""
    import resource

    _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # macOS reports no limit and enforces one
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))


if __name__ == "__main__":
    sys.exit(main())
