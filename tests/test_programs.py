"""Every program that argparse reads the arguments of has limits for its numbers and files."""

from __future__ import annotations

import argparse
import runpy
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.test_encodings import ROOT, SOURCES

SETTINGS = "service.settings"
"""Reads texts with argparse, and then checks each setting: tests/service/test_settings.py."""


def programs() -> list[str]:
    """The modules that make a parser and can be run."""
    found = []
    for path in SOURCES:
        source = path.read_text(encoding="utf-8")
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        if "ArgumentParser(" in source and name != SETTINGS:
            assert "__main__" in source or name.endswith("__main__"), name
            found.append(name)
    return found


class Taken(BaseException):
    """A parser was about to parse."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        """The parser."""
        self.parser = parser


@pytest.fixture
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The parser of a program, with all its arguments."""

    def take(parser: argparse.ArgumentParser, *_: object) -> None:
        raise Taken(parser)

    needed = {"tests.stress.fuzz": "atheris", "deploy.generate.sbom": "cyclonedx"}
    for prefix, library in needed.items():
        if request.param.startswith(prefix) and find_spec(library) is None:
            pytest.skip(f"{library} is not installed")
    with monkeypatch.context() as patched:
        patched.setattr(argparse.ArgumentParser, "parse_args", take)
        patched.setattr(sys, "argv", [request.param])
        # A second run of a module that others have imported leads to a warning.
        patched.delitem(sys.modules, request.param, raising=False)
        with pytest.raises(Taken) as taken:
            runpy.run_module(request.param, run_name="__main__", alter_sys=True)
    return taken.value.parser


def arguments(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Those that have a value."""
    yield from (action for action in parser._actions if action.nargs != 0)


def refused(
    parser: argparse.ArgumentParser,
    action: argparse.Action,
    text: str,
    capsys: pytest.CaptureFixture[str],
) -> str:
    """The sentence that a wrong value leads to; the status is 2."""
    needed = [
        str(next(iter(other.choices or ["x"])))
        for other in parser._actions
        if not other.option_strings and other is not action and other.nargs not in ("*", "?")
    ]
    if action.option_strings:
        given = [*needed, f"{action.option_strings[0]}={text}"]
    else:
        given = [*needed, text]
    with pytest.raises(SystemExit) as ended:
        parser.parse_args(given)
    assert ended.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("parser", programs(), indirect=True)
def test_every_argument_has_limits(
    parser: argparse.ArgumentParser, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A number has a smallest and a largest value, a file can be written, a choice is known."""
    for action in arguments(parser):
        assert action.type not in (int, float, Path), f"{action.dest} has no limits"
        name = action.option_strings[0] if action.option_strings else action.metavar or action.dest
        if action.choices:
            assert "'bicycle'" in refused(parser, action, "bicycle", capsys)
            continue
        if action.type is None:
            continue  # any text
        wrong = ["nan", "inf", "1_0", "\uff11", "1e99", "-1", "x", "9" * 5000]
        if name in ("--json", "--plot", "--page", "--report", "--markdown", "path"):
            wrong = [str(tmp_path / "no" / "x.json"), str(tmp_path), "/dev/null/x"]
        for text in wrong:
            sentence = refused(parser, action, text, capsys)
            assert str(name) in sentence
            assert text[:40] in sentence


def test_programs_are_found() -> None:
    """The search finds programs of each folder that has some."""
    assert {"service.tokens", "bench.__main__", "deploy.generate.load"} <= set(programs())
