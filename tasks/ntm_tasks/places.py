"""Objects of a user's own, by their place in a Python module, such as `my_package.tasks:PARITY`."""

from __future__ import annotations

import os
import re
import sys
from importlib import import_module
from pathlib import Path
from traceback import extract_tb
from types import ModuleType
from typing import TypeVar

T = TypeVar("T")

_PLACE = re.compile(r"([^\W\d]\w*(?:\.[^\W\d]\w*)*):([^\W\d]\w*)")


class PlaceError(ValueError):
    """There is no object of that kind at that place."""


def find(source: str, kind: type[T], package: str, example: str) -> T:
    """
    Return the object at a place, which is MODULE:NAME; importing the module runs its code.

    The module may also lie in the current folder.

    Args:
        source: The place.
        kind: The class that the object must be of.
        package: What users import that class from.
        example: A place of one, for errors.

    Raises:
        PlaceError: the text is no place, the module cannot be imported, or it has no such object.
    """
    noun = kind.__name__.lower()
    found = _PLACE.fullmatch(source)
    if found is None or found[1].endswith(".py"):
        raise PlaceError(
            f"{source!r} is not MODULE:NAME, such as {example}; the module is named as in an "
            "import, with dots and without .py"
        )
    module = _imported(source, found[1])
    where = getattr(module, "__file__", None) or found[1]
    if not hasattr(module, found[2]):
        names = [name for name, value in vars(module).items() if isinstance(value, kind)]
        raise PlaceError(
            f"{source}: {where} has no {found[2]}; "
            + (f"its {noun}s are {', '.join(names)}" if names else f"it has no {noun}s at all")
        )
    value = getattr(module, found[2])
    if not isinstance(value, kind):
        given = "class" if isinstance(value, type) else type(value).__name__
        article = "an" if noun[0] in "aeiou" else "a"
        raise PlaceError(
            f"{source} is a {given}, not {article} {noun}; make it an object of "
            f"{package}.{kind.__name__}: {found[2]} = {kind.__name__}(...)"
        )
    return value


def said(error: BaseException) -> str:
    """Return what an error in the user's code says, and the line that it comes from."""
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if isinstance(error, SyntaxError):
        return text  # which has the line
    frames = [frame for frame in extract_tb(error.__traceback__) if _is_of_user(frame.filename)]
    return f"{text} ({frames[-1].filename}, line {frames[-1].lineno})" if frames else text


def _imported(source: str, name: str) -> ModuleType:
    """Import a module of the user's, which may lie in the current folder."""
    here = os.getcwd()
    if here not in sys.path:
        sys.path.append(here)  # the last, so that a file here hides no library
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise PlaceError(
                f"{source} cannot be imported: {error}; install that module"
            ) from error
        raise PlaceError(
            f"{source}: there is no module {error.name}, neither in {here} nor among the installed "
            "packages; go to the folder that has it, or install it"
        ) from error
    # The user's own code: importing it can raise anything, and may even try to exit.
    except (Exception, SystemExit) as error:
        raise PlaceError(f"{source} cannot be imported: {said(error)}") from error


def _is_of_user(file: str) -> bool:
    return not file.startswith("<") and Path(file).parent != Path(__file__).parent
