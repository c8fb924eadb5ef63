"""Options that commands share."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from ntm_client.blocking import Client
from ntm_client.connection import Token
from ntm_client.encryption import tls
from ntm_client.errors import InvalidRequest

TOKEN_VARIABLE = "NTM_TOKEN"  # noqa: S105 - the name of a variable

AT_LEAST_1 = Parameter(validator=Number(gte=1))

Positive = Annotated[int, AT_LEAST_1]

MAX_SIZE = 10_000
"""The largest size, and product of sizes, of a sequence to draw: its traces take gigabytes."""

Length = Annotated[int, Parameter(validator=Number(gte=1, lte=MAX_SIZE))]

Seed = Annotated[int, Parameter(validator=Number(gte=0))]

Locations = Annotated[
    int | None,
    AT_LEAST_1,
    Parameter(help="Memory locations of the session; the model's own by default."),
]


@Parameter(name="*")
@dataclass(frozen=True)
class ServerOptions:
    """The options that say how a command reaches the server."""

    server: Annotated[str, Parameter(env_var="NTM_SERVER")] = "localhost:50051"
    """Address of the server: HOST:PORT, or unix:PATH."""
    token_file: Path | None = None
    """File of the token to send; by default the token in NTM_TOKEN, if there is one."""
    tls: bool = False
    """Encrypt the connection. Each option below does as well."""
    ca: Path | None = None
    """PEM file of the authorities to trust instead of the usual ones."""
    cert: Path | None = None
    """PEM file of the certificate to show to the server."""
    key: Path | None = None
    """PEM file of the certificate's private key."""
    server_name: str | None = None
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

    def _token(self) -> Token | None:
        file = self.token_file
        # The file is read for every call, because a program that renews the token replaces the
        # file.
        if file is not None:
            return lambda: file.read_text().strip()
        return os.environ.get(TOKEN_VARIABLE) or None


LOCAL = ServerOptions()
"""The server at the default address, without encryption."""
