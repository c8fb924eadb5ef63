"""What a user wrote, by its place in a Python module, such as `my_package.tasks:PARITY`."""

from __future__ import annotations

import os
import re
import sys
import sysconfig
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from traceback import extract_tb
from types import ModuleType
from typing import Any, TypeVar

T = TypeVar("T")

_PLACE = re.compile(r"([^\W\d]\w*(?:\.[^\W\d]\w*)*):([^\W\d]\w*)")

_INSTALLED = tuple(
    {
        f"{Path(folder).resolve()}{os.sep}"
        for name, folder in sysconfig.get_paths().items()
        if name in ("stdlib", "platstdlib", "purelib", "platlib")
    }
)
"""Folders of Python itself and of what is installed, whose lines a user would not change."""


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
    value = _value(source, example, f"{noun}s", lambda _, value: isinstance(value, kind))
    if not isinstance(value, kind):
        article = "an" if noun[0] in "aeiou" else "a"
        name = source.partition(":")[2]
        raise PlaceError(
            f"{source} is {_kind(value)}, not {article} {noun}; make it an object of "
            f"{package}.{kind.__name__}: {name} = {kind.__name__}(...)"
        )
    return value


def find_function(source: str, example: str) -> Callable[..., Any]:
    """Return the function at a place; the arguments and errors are those of `find`."""
    value = _value(source, example, "functions", _is_function_of)
    if not callable(value):
        raise PlaceError(f"{source} is {_kind(value)}, not a function")
    return value


def said(error: BaseException) -> str:
    """Return what an error in the user's code says, and the line that it comes from."""
    place = _place(error)
    return _text(error) + (f" ({place[0]}, line {place[1]})" if place else "")


def _value(
    source: str, example: str, nouns: str, is_one: Callable[[ModuleType, object], bool]
) -> object:
    """Return what is at a place; `nouns` and `is_one` are for what else the module has."""
    found = _PLACE.fullmatch(source)
    if found is None or found[1].endswith(".py"):
        raise PlaceError(
            f"{source!r} is not MODULE:NAME, such as {example}; the module is named as in an "
            "import, with dots and without .py"
        )
    module = _imported(source, found[1])
    if not hasattr(module, found[2]):
        where = getattr(module, "__file__", None) or found[1]
        names = [name for name, value in vars(module).items() if is_one(module, value)]
        raise PlaceError(
            f"{source}: {where} has no {found[2]}; "
            + (f"its {nouns} are {', '.join(names)}" if names else f"it has no {nouns} at all")
        )
    return getattr(module, found[2])


def _is_function_of(module: ModuleType, value: object) -> bool:
    """Whether a module has defined a function, and not a class or what it imported."""
    is_its_own = getattr(value, "__module__", None) == module.__name__
    return is_its_own and callable(value) and not isinstance(value, type)


def _kind(value: object) -> str:
    given = "class" if isinstance(value, type) else type(value).__name__
    return f"{'an' if given[0] in 'aeiouAEIOU' else 'a'} {given}"


def _imported(source: str, name: str) -> ModuleType:
    """Import a module of the user's, which may lie in the current folder."""
    here = os.getcwd()
    if here not in sys.path:
        sys.path.append(here)  # the last, so that a file here hides no library
    try:
        return import_module(name)
    # The user's own code: importing it can raise anything, and may even try to exit.
    except (Exception, SystemExit) as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing and f"{name}.".startswith(f"{missing}."):
            raise PlaceError(
                f"{source}: there is no module {missing}, neither in {here} nor among the "
                "installed packages; go to the folder that has it, or install it"
            ) from error
        place = _place(error)
        first = f"{_from_here(place[0], here)}:{place[1]}: " if place else ""
        then = "; install that module" if missing else ""
        raise PlaceError(f"{first}{source} cannot be imported: {_text(error)}{then}") from error


def _text(error: BaseException) -> str:
    text = " ".join((error.msg if isinstance(error, SyntaxError) else str(error)).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _place(error: BaseException) -> tuple[str, int] | None:
    """Return the file and the line of the user's, the innermost, that an error comes from."""
    if isinstance(error, SyntaxError) and error.filename and error.lineno:
        return error.filename, error.lineno
    frames = [
        (frame.filename, frame.lineno or 0)
        for frame in extract_tb(error.__traceback__)
        if not frame.filename.startswith("<") and Path(frame.filename).parent != _HERE
    ]
    theirs = [place for place in frames if not str(Path(place[0]).resolve()).startswith(_INSTALLED)]
    # All are installed if the task itself is.
    found = theirs or frames
    return found[-1] if found else None


_HERE = Path(__file__).parent


def _from_here(file: str, here: str) -> str:
    """Return a file's path, from the current folder if it lies in it."""
    path = Path(file)
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
