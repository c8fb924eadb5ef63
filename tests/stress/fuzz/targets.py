"""Everything that takes bytes from outside, each with what to send it and what must hold."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

from hypothesis import strategies as st

from tests.stress.fuzz.command_lines import command_lines, settings_reader
from tests.stress.fuzz.credentials import (
    doorkeeper,
    key_files,
    keys_reader,
    metadata,
    token_files,
    tokens_reader,
)
from tests.stress.fuzz.models import loader, models, parser
from tests.stress.fuzz.requests import infer_streams, inferences, streams, unary_calls
from tests.stress.fuzz.serving import fuzzed_server
from tests.stress.fuzz.specs import spec_reader, texts


class Target(NamedTuple):
    """Something that takes bytes from outside."""

    strategy: st.SearchStrategy[Any]
    """What it is sent."""
    harness: Callable[[], AbstractContextManager[Callable[[Any], None]]]
    """Gives what sends one such value, and raises unless all that must hold holds."""
    examples: int
    """How many values the test suite sends."""


TARGETS = {
    "calls": Target(unary_calls, fuzzed_server, 150),
    "streams": Target(streams, fuzzed_server, 100),
    "inferences": Target(inferences, fuzzed_server, 100),
    "infer-streams": Target(infer_streams, fuzzed_server, 100),
    "spec": Target(texts, spec_reader, 500),
    "model": Target(models, parser, 150),
    "network": Target(models, loader, 25),
    "tokens": Target(token_files, tokens_reader, 200),
    "keys": Target(key_files, keys_reader, 200),
    "authorization": Target(metadata, doorkeeper, 300),
    "settings": Target(command_lines, settings_reader, 150),
}
