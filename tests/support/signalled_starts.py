"""
A program that starts a server once for each statement of its start, and sends it SIGTERM there.

It prints what each process ended with, as JSON: file, line, exit status, standard error. The status
is `NOT_REACHED` for a statement that this start does not come to. Its arguments are the server's.
"""

from __future__ import annotations

import ast
import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import service.__main__
import service.server

NOT_REACHED = 77

Place = tuple[str, int]

_FUNCTIONS = {"main", "prepare", "_prepare", "open", "serve"}


def statements() -> Iterator[Place]:
    """File and line of each statement from when `main` hears signals until the server waits."""
    for module in (service.__main__, service.server):
        assert module.__file__ is not None
        for node in ast.walk(ast.parse(Path(module.__file__).read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (
                node.name in _FUNCTIONS
            ):
                # Without the docstring, and without the statement that begins to hear signals.
                for statement in node.body[2 if node.name == "main" else 1 :]:
                    yield module.__file__, statement.lineno
                    if "asyncio.wait(" in ast.unparse(statement):
                        break


def signalled_at(place: Place, last: Place) -> None:
    """Serve, and send the signal to this process at a place; ends the process."""
    is_sent = False

    def watch(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal is_sent
        if frame.f_code.co_filename not in (place[0], last[0]):
            return None
        here = (frame.f_code.co_filename, frame.f_lineno)
        if event == "line" and here == place and not is_sent:
            is_sent = True
            os.kill(os.getpid(), signal.SIGTERM)
        if event == "line" and here == last and not is_sent:
            os._exit(NOT_REACHED)
        return watch

    sys.settrace(watch)
    sys.exit(service.__main__.main())


def ended(place: Place, last: Place) -> tuple[int, str]:
    """The exit status and the standard error of a process that got the signal at a place."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        os.dup2(writing, 2)
        try:
            signalled_at(place, last)
        except SystemExit as exit_:
            os._exit(exit_.code if isinstance(exit_.code, int) else 1)
        finally:
            os._exit(99)
    os.close(writing)
    with os.fdopen(reading) as errors:
        said = errors.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said


def main() -> None:
    """Go through the statements."""
    places = list(statements())
    last = max(place for place in places if place[0] == service.server.__file__)  # in `serve`
    found = [(*place, *ended(place, last)) for place in places]
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
