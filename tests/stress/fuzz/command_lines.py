"""Command lines and environments that nobody meant."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import fields

from hypothesis import strategies as st

from service.rpc import options
from service.settings import Settings, variable

CommandLine = tuple[Sequence[str], Mapping[str, str]]

_FLAGS = ["--" + setting.name.replace("_", "-") for setting in fields(Settings)]
_VALUES = st.one_of(
    st.sampled_from(
        ("", "0", "-1", "1", "1e9", "1e400", "nan", "inf", "-inf", "0x10", "1_000", "१२", "%s")
    ),
    st.sampled_from(("cpu", "auto", "info", "DEBUG", "127.0.0.1", "::", "localhost", "nowhere")),
    st.integers().map(str),
    st.integers(0, 70_000).map(str),
    st.floats().map(str),
    st.text(max_size=10),
)

_arguments = st.lists(
    st.one_of(
        st.builds(lambda flag, value: f"{flag}={value}", st.sampled_from(_FLAGS), _VALUES),
        st.sampled_from((*_FLAGS, "--help", "--", "-", "--mod", "@file")),
        _VALUES,
    ),
    max_size=6,
)
_environments = st.dictionaries(
    st.sampled_from([variable(setting) for setting in fields(Settings)]), _VALUES, max_size=3
)

command_lines: st.SearchStrategy[CommandLine] = st.tuples(_arguments, _environments)
"""Arguments, and variables."""


@contextmanager
def settings_reader() -> Iterator[Callable[[CommandLine], None]]:
    """Hand out what reads settings: it ends with status 0 or 2 and a text, or they can be used."""

    def check(command_line: CommandLine) -> None:
        arguments, environment = command_line
        output, errors = io.StringIO(), io.StringIO()
        status = None
        with redirect_stdout(output), redirect_stderr(errors):
            try:
                _use(Settings.from_command_line(arguments, environment))
            except SystemExit as ended:
                status = ended.code
        assert status in (None, 0, 2)
        if status is not None:
            told = output if status == 0 else errors
            assert "usage: python -m service" in told.getvalue()

    yield check


def _use(settings: Settings) -> None:
    """Do with settings what others cannot check for them."""
    for seconds in (settings.default_idle_timeout_seconds, settings.drain_seconds):
        assert seconds >= 0
    for name, value in options.arguments(settings):
        assert -1 <= value < 2**31, f"gRPC cannot hold {name}"
    assert settings.host
    assert settings.metrics_host
