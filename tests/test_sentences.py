"""Sentences of the server that name calls of its API reach no user of the command `ntm`."""

from __future__ import annotations

import ast
import inspect

from ntm.v1 import ntm_pb2
from ntm_client.errors import BY_REASON
from ntm_lab import cli
from service import errors
from tests.test_boundaries import ROOT, sources

CALLS = [method.name for method in ntm_pb2.DESCRIPTOR.services_by_name["NtmService"].methods]
"""The calls of the API; `Step` is left out below, because it begins other words."""


def test_the_command_has_words_of_its_own_for_calls_of_the_api() -> None:
    """Each class of error whose message names a call is put into other words by the command."""
    naming = {
        name
        for path in sources("service")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and (name := _class_of(node)) is not None
        and any(call in ast.unparse(node) for call in CALLS if call != "Step")
    }
    assert naming == {"ModelUnknown"}, f"is anything of {ROOT} missing?"

    client_names = {BY_REASON[getattr(errors, name).reason].__name__ for name in naming}
    said = inspect.getsource(cli._sentence)
    assert {name for name in client_names if name not in said} == set()


def _class_of(node: ast.Call) -> str | None:
    """The name of the error that the call makes; None if it makes something else."""
    name = node.func.id if isinstance(node.func, ast.Name) else ""
    found = getattr(errors, name, None)
    return name if isinstance(found, type) and issubclass(found, errors.NtmError) else None
