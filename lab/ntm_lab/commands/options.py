"""Options that commands share."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Annotated

from cyclopts import ArgumentCollection, CoercionError, Group, Parameter, Token
from cyclopts.validators import Number

from ntm_client import connection
from ntm_client.blocking import Client
from ntm_client.encryption import tls
from ntm_client.errors import InvalidRequest
from ntm_lab import outputs
from ntm_lab.outputs import OutputInvalid

TOKEN_VARIABLE = "NTM_TOKEN"  # noqa: S105 - the name of a variable

WHOLE = re.compile(r"[+-]?\d{1,4000}", re.ASCII)
DECIMAL = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)

STANDARD = Path("-")
"""Stands for standard input or standard output."""

MAX_SIZE = 10_000
"""The largest size, and product of sizes, of a sequence to draw: its traces take gigabytes."""

MAX_UINT32 = 2**32 - 1
"""The largest number that the API has a place for; the server's own limits are lower."""


def whole(_: object, tokens: Sequence[Token]) -> int:
    """
    The number that an option is given, in decimal digits.

    Raises CoercionError for all else that Python takes for a number.
    """
    return int(_text(tokens[0], int, WHOLE))


def seconds(_: object, tokens: Sequence[Token]) -> float:
    """The time that an option is given. Raises CoercionError as `whole` does."""
    return float(_text(tokens[0], float, DECIMAL))


def _text(token: Token, kind: type, form: re.Pattern[str]) -> str:
    if not form.fullmatch(token.value):
        raise CoercionError(token=token, target_type=kind)
    return token.value


def _from_to(minimum: int, maximum: int) -> Parameter:
    limits = Number(gte=minimum, lte=maximum)
    return Parameter(converter=whole, n_tokens=1, validator=limits)


Sequences = Annotated[int, _from_to(1, 100_000)]

Length = Annotated[int, _from_to(1, MAX_SIZE)]

Sizes = Annotated[tuple[Length, ...], Parameter(consume_multiple=True)]

Seed = Annotated[int, _from_to(0, 2**63 - 1)]

Steps = Annotated[int, _from_to(0, 2**63 - 1)]

EverySteps = Annotated[int, _from_to(1, MAX_UINT32)]

IdleTimeout = Annotated[
    float, Parameter(converter=seconds, validator=Number(gte=0.001, lte=1_000_000_000))
]

Locations = Annotated[
    int | None,
    _from_to(1, MAX_UINT32),
    Parameter(help="Memory locations of the session; the model's own by default."),
]


def filled(_: object, text: str | None) -> None:
    """Check that a text is not empty. Raises ValueError."""
    if text == "":
        raise ValueError("It is empty.")


Text = Annotated[str, Parameter(validator=filled)]


def readable(_: object, paths: Path | tuple[Path, ...] | None) -> None:
    """Check that each file is there and may be read. Raises ValueError."""
    for path in _each(paths):
        try:
            is_folder, is_there = path.is_dir(), path.exists()
        except OSError as error:
            raise ValueError(f"{error.strerror}: {path}.") from error
        if is_folder:
            raise ValueError(f"{path} is a folder; name a file.")
        if not is_there:
            raise ValueError(f"No such file: {path}.")
        if not os.access(path, os.R_OK):
            raise ValueError(f"{path} may not be read.")


TaskSource = Annotated[
    str | None,
    Parameter(
        validator=filled,
        help="A task of your own that the model is of: MODULE:NAME, whose code is run here, or a "
        "file of sequences, .npz.",
    ),
]


@dataclass(frozen=True)
class Writable:
    """Checks a file, or a folder, that a command writes, before the command begins."""

    suffixes: tuple[str, ...] = ()
    """Endings that the file's name may have; empty for any."""
    folder: bool = False

    def __call__(self, _: object, paths: Path | None) -> None:
        """Raise ValueError if it cannot be written."""
        try:
            for path in _each(paths):
                if self.folder:
                    outputs.check_folder(path)
                else:
                    outputs.check(path, self.suffixes)
        except OutputInvalid as error:
            text = str(error)
            raise ValueError(f"{text[0].upper()}{text[1:]}.") from error


def _each(paths: Path | tuple[Path, ...] | None) -> list[Path]:
    """The files of an option, without standard input and output."""
    several = paths if isinstance(paths, tuple) else (paths,)
    return [path for path in several if path not in (None, STANDARD)]


def groups(parameter: Parameter) -> tuple[object, ...]:
    """The groups that an option is declared to be in."""
    found = parameter.group
    return found if isinstance(found, tuple) else (found,)


def _files_differ(arguments: ArgumentCollection) -> None:
    """
    Raise ValueError if a command would write over its input, or over its own output.

    Standard input counts as an input even for a command that does not read it: it is cheaper to
    name another output than to lose a file.
    """
    given: list[tuple[str, Path, bool]] = []
    for argument in arguments:
        if argument.has_tokens:
            writes = OUTPUTS in groups(argument.parameter)
            given += [(argument.name, path, writes) for path in _each(argument.value)]
    for (name, path, writes), (other, second, also) in combinations(given, 2):
        if (writes or also) and outputs.is_same(path, second):
            raise ValueError(f"{name} and {other} are the same file, {path}.")
    for name, path, writes in given:
        if writes and outputs.is_standard_input(path):
            raise ValueError(f"{name} and standard input are the same file, {path}.")


FILES = Group(validator=_files_differ, show=False)
INPUTS, OUTPUTS = Group(show=False), Group(show=False)

HYPHEN = Parameter(allow_leading_hyphen=True)
"""Of an option that takes `STANDARD`."""

INPUT = Parameter(group=("Parameters", FILES, INPUTS), validator=readable)
"""Of an option that names a file, or several, that the command reads."""


def output(*suffixes: str) -> Parameter:
    """Make what is said of an option that names a file that the command writes."""
    return Parameter(group=("Parameters", FILES, OUTPUTS), validator=Writable(suffixes))


OUTPUT_FOLDER = Parameter(group=("Parameters", OUTPUTS), validator=Writable(folder=True))
"""Of an option that names a folder that the command writes files in."""


@Parameter(name="*")
@dataclass(frozen=True)
class ServerOptions:
    """The options that say how a command reaches the server."""

    server: Annotated[Text, Parameter(env_var="NTM_SERVER")] = "localhost:50051"
    """Address of the server: HOST:PORT, or unix:PATH."""
    token_file: Annotated[Path | None, INPUT] = None
    """File of the token to send; by default the token in NTM_TOKEN, if there is one."""
    tls: bool = False
    """Encrypt the connection. Each option below does as well."""
    ca: Annotated[Path | None, INPUT] = None
    """PEM file of the authorities to trust instead of the usual ones."""
    cert: Annotated[Path | None, INPUT] = None
    """PEM file of the certificate to show to the server."""
    key: Annotated[Path | None, INPUT] = None
    """PEM file of the certificate's private key."""
    server_name: Text | None = None
    """The name that the server's certificate has, if it is not the host of the address."""

    def connect(self) -> Client:
        """
        Make a client of the server. It connects at its first call.

        Raises:
            InvalidRequest: there is a certificate without a key, or a key without a certificate.
        """
        if (self.cert is None) != (self.key is None):
            raise InvalidRequest("--cert and --key go together; give both")
        encrypted = self.tls or self.ca or self.cert or self.server_name
        credentials = tls(self.ca, self.cert, self.key, self.server_name) if encrypted else None
        return Client(self.server, credentials=credentials, token=self._token())

    def _token(self) -> connection.Token | None:
        file = self.token_file
        # The file is read for every call, because a program that renews the token replaces the
        # file. The client refuses what is not a token, such as bytes that are no text.
        if file is not None:
            return lambda: file.read_text("utf-8-sig", errors="replace").strip()
        return os.environ.get(TOKEN_VARIABLE) or None


LOCAL = ServerOptions()
"""The server at the default address, without encryption."""
