"""Every program reads and writes text in an encoding that it states, not in the terminal's."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

FOLDERS = ["service", "client", "tasks", "lab", "export", "bench", "deploy", "docs", "tests/stress"]

SOURCES = sorted(
    path
    for folder in (
        "service",
        "client",
        "tasks",
        "lab",
        "export",
        "bench",
        "deploy",
        "docs",
        "tests/stress",
    )
    for path in (ROOT / folder).rglob("*.py")
    if not path.name.endswith(("_pb2.py", "_pb2_grpc.py")) and "node_modules" not in path.parts
)


def unstated(source: str) -> Iterator[int]:
    """The lines of calls that read or write text and name no encoding."""
    for call in ast.walk(ast.parse(source)):
        if isinstance(call, ast.Call) and _is_text(call) and not _states(call):
            yield call.lineno


def _is_text(call: ast.Call) -> bool:
    match call.func:
        case ast.Attribute(attr="read_text" | "write_text", value=ast.Name(id="outputs")):
            return False  # writes UTF-8
        case ast.Attribute(attr="read_text" | "write_text" | "TextIOWrapper"):
            return True
        case ast.Name(id="TextIOWrapper"):
            return True
        case ast.Attribute(attr="run" | "Popen" | "check_output", value=ast.Name(id="subprocess")):
            return any(word.arg == "text" for word in call.keywords)
        case ast.Name(id="open") | ast.Attribute(attr="fdopen" | "NamedTemporaryFile"):
            return "b" not in _mode(call, 1, "b" if _is_temporary(call) else "r")
        case ast.Attribute(attr="open", value=value):
            # Of a path; other objects have a method of this name too, whose argument is no mode.
            mode = _mode(call, 0, "r")
            return set(mode) <= set("rwaxt+") and _is_path(value, call)
    return False


def _is_temporary(call: ast.Call) -> bool:
    return isinstance(call.func, ast.Attribute) and call.func.attr == "NamedTemporaryFile"


def _is_path(value: ast.expr, call: ast.Call) -> bool:
    has_mode = bool(call.args) or any(word.arg == "mode" for word in call.keywords)
    named = isinstance(value, ast.Name) and value.id in ("path", "file", "log")
    return has_mode or any(word.arg == "newline" for word in call.keywords) or named


def _mode(call: ast.Call, place: int, default: str) -> str:
    place = 0 if _is_temporary(call) else place
    given = [word.value for word in call.keywords if word.arg == "mode"] or call.args[place:]
    match given:
        case [ast.Constant(value=str(mode)), *_]:
            return mode
        case []:
            return default
    return "b"  # not known here


def _states(call: ast.Call) -> bool:
    if any(word.arg == "encoding" for word in call.keywords):
        return True
    places = {"read_text": 0, "write_text": 1}
    name = call.func.attr if isinstance(call.func, ast.Attribute) else ""
    return name in places and len(call.args) > places[name]


def test_every_text_states_its_encoding() -> None:
    """No file and no process's output is read or written as the locale happens to say."""
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in SOURCES
        for line in unstated(path.read_text(encoding="utf-8"))
    ]
    assert len(SOURCES) > 200
    assert found == []


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("open('a')", [1]),
        ("open('a', 'rb')", []),
        ("open('a', encoding='utf-8')", []),
        ("path.open()", [1]),
        ("path.open('w')", [1]),
        ("path.open('wb')", []),
        ("stream.open('copy')", []),
        ("a.b.read_text()", [1]),
        ("a.b.read_text('utf-8')", []),
        ("a.write_text('utf-8')", [1]),
        ("a.write_text('a', 'utf-8')", []),
        ("subprocess.run([], text=True)", [1]),
        ("subprocess.run([])", []),
        ("tempfile.NamedTemporaryFile()", []),
        ("tempfile.NamedTemporaryFile('w')", [1]),
        ("os.fdopen(1, 'wb')", []),
    ],
)
def test_the_search_finds_what_states_none(source: str, lines: list[int]) -> None:
    """Calls are told apart by what they read and write."""
    assert list(unstated(source)) == lines
