"""Why a module cannot be served, and the line of its source that has to change."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
import traceback
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import fx, nn

_LONGEST = 300
"""The most characters of what a library says."""

_FRAME = re.compile(r'File "([^"]+)", line (\d+)')

_NOT_THEIRS = tuple(
    f"{Path(folder).resolve()}/"
    for folder in (Path(torch.__file__).parent, Path(__file__).parent.parent)
)
"""Folders whose lines nobody who exports a module would change."""


class ModuleRefused(ValueError):
    """
    A module cannot be served; the message says why, what to change, and where its source is known.
    """

    def __init__(self, reason: str, place: str = "") -> None:
        """`place` is FILE:LINE, or empty."""
        super().__init__(f"{place}: {reason}" if place else reason)
        self.place = place


def place_of_error(error: BaseException) -> str:
    """Return FILE:LINE of the innermost line of the user's that raised an error; may be empty."""
    frames = [(f.filename, f.lineno or 0) for f in traceback.extract_tb(error.__traceback__)]
    return _innermost(frames) or place_in(str(error))


def place_of_node(node: fx.Node) -> str:
    """Return FILE:LINE of the user's line that an operation of a graph comes from; may be empty."""
    return place_in(node.meta.get("stack_trace") or "")


def place_in(text: str) -> str:
    """Return FILE:LINE of the user's innermost line in a text of Python's frames; may be empty."""
    return _innermost([(file, int(line)) for file, line in _FRAME.findall(text)])


def place_of_step(module: nn.Module) -> str:
    """Return FILE:LINE of a module's `forward`; empty where Python has no source of it."""
    code = type(module).forward.__code__
    return _innermost([(code.co_filename, code.co_firstlineno)])


def place_of_attribute(module: nn.Module, name: str) -> str:
    """Return FILE:LINE of where a module's methods change `self.NAME`, as far as one can see."""
    for kind in type(module).__mro__:
        try:
            lines, first = inspect.getsourcelines(kind)
            tree = ast.parse(textwrap.dedent("".join(lines)))
        except (OSError, TypeError, SyntaxError):  # no source, as of a class typed at a prompt
            continue
        found = sorted(
            node.lineno
            for method in ast.walk(tree)
            if isinstance(method, ast.FunctionDef) and method.name != "__init__"
            for node in ast.walk(method)
            if isinstance(node, ast.Attribute) and node.attr == name and _is_changed(node, method)
        )
        if found:
            return _innermost([(inspect.getsourcefile(kind) or "", first + found[0] - 1)])
    return place_of_step(module)


def what_failed(error: BaseException | str) -> str:
    """Return the first sentence of an error, in one line."""
    lines = str(error).strip().splitlines()
    return lines[0][:_LONGEST].rstrip(".") if lines else type(error).__name__


def _is_changed(attribute: ast.Attribute, method: ast.FunctionDef) -> bool:
    """Whether a method assigns to an attribute, or to a part of it, or calls a method of it."""
    if isinstance(attribute.ctx, ast.Store | ast.Del):
        return True
    for node in ast.walk(method):
        if isinstance(node, ast.Subscript | ast.Attribute) and node.value is attribute:
            if isinstance(node.ctx, ast.Store | ast.Del):
                return True
            called = any(isinstance(e, ast.Call) and e.func is node for e in ast.walk(method))
            if called and isinstance(node, ast.Attribute):
                return True
    return False


def _innermost(frames: Iterable[tuple[str, int]]) -> str:
    theirs = [
        f"{file}:{line}"
        for file, line in frames
        if line and file.endswith(".py") and not str(Path(file).resolve()).startswith(_NOT_THEIRS)
    ]
    if not theirs:
        return ""
    file, _, line = theirs[-1].rpartition(":")
    path = Path(file)
    if path.is_relative_to(Path.cwd()):
        path = path.relative_to(Path.cwd())
    return f"{path}:{line}"
