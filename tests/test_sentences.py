"""Sentences of the server that name calls of its API reach no user of the command `ntm`."""

from __future__ import annotations

import ast

import pytest

from ntm.v1 import ntm_pb2
from ntm_client.errors import BY_REASON
from ntm_lab import cli
from service import errors
from tests.test_boundaries import sources

CALLS = {
    method.name
    for method in ntm_pb2.DESCRIPTOR.services_by_name["NtmService"].methods
    if method.name != "Step"  # which begins other words
}


def _class_of(node: ast.Call) -> str | None:
    """The name of the error that the call makes; None if it makes something else."""
    name = node.func.id if isinstance(node.func, ast.Name) else ""
    found = getattr(errors, name, None)
    return name if isinstance(found, type) and issubclass(found, errors.NtmError) else None


def _texts(node: ast.AST) -> str:
    """All text in an expression, without what is put into it."""
    constants = (each.value for each in ast.walk(node) if isinstance(each, ast.Constant))
    return "".join(text for text in constants if isinstance(text, str))


NAMING = [
    (name, text)
    for path in sources("service")
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    if isinstance(node, ast.Call) and (name := _class_of(node)) and node.args
    if any(call in (text := _texts(node.args[0])) for call in CALLS)
]
"""Each error whose message names a call of the API: its class and its text."""


@pytest.mark.parametrize(("name", "text"), NAMING)
def test_the_command_has_words_of_its_own_for_calls_of_the_api(name: str, text: str) -> None:
    """It names commands of its own instead."""
    said = cli._sentence(BY_REASON[getattr(errors, name).reason](text))

    assert {call for call in CALLS if call in said} == set()
    assert "`ntm " in said


def test_there_is_such_an_error() -> None:
    """So the test above looks at something."""
    assert {name for name, _ in NAMING} == {"ModelUnknown"}
