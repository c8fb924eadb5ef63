"""Authentication: from a call's token or the certificate of its connection to its principal."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeAlias

import grpc
import grpc.aio

from service.auth import jwt_keys, tokens
from service.auth.principal import METRICS, Principal
from service.errors import Unauthenticated
from service.settings import Settings

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Metadata: TypeAlias = "Iterable[tuple[str, str | bytes]] | None"

_NO_CREDENTIALS = (
    "the call has no valid token: send one in the metadata `authorization: Bearer TOKEN`, or use a "
    "client certificate if this server accepts them"
)


class Authentication:
    """The tokens, keys and certificates that the settings name."""

    def __init__(self, settings: Settings) -> None:
        """Read the files. Raises FileInvalid."""
        self._tokens = (
            tokens.watched("--tokens-file", Path(settings.tokens_file))
            if settings.tokens_file
            else None
        )
        self._jwt_keys = (
            jwt_keys.watched(Path(settings.jwt_keys), settings.jwt_issuer, settings.jwt_audience)
            if settings.jwt_keys
            else None
        )
        self._trusts_certificates = bool(settings.tls_client_ca)
        self.is_on = settings.authenticates
        """Whether calls need a token or a client certificate."""

    def by_token(self, metadata: Metadata) -> Principal | None:
        """
        Return the principal of a call with this metadata, or None to ask `by_connection`.

        Raises:
            Unauthenticated: the token is missing or not valid; the message does not say which, so
                that guessing teaches nothing.
        """
        if not self.is_on:
            return None
        shown = [value for key, value in metadata or () if key == "authorization"]
        if not shown and self._trusts_certificates:
            return None
        found = None
        if len(shown) == 1 and isinstance(shown[0], str):
            found = self._of_token(_bearer(shown[0]))
        if found is None:
            raise Unauthenticated(_NO_CREDENTIALS)
        return found

    def by_connection(self, context: Context) -> Principal:
        """
        Return the principal of a call without a token.

        Its name is the common name of the client certificate's subject, else the certificate's
        first alternative name. On a server that does not authenticate, it is the peer's host.

        Raises:
            Unauthenticated: the connection has no client certificate with a name.
        """
        if not self.is_on:
            return Principal(_host(context), is_authenticated=False)
        shown = context.auth_context() if self._trusts_certificates else {}
        for field in ("x509_common_name", "x509_subject_alternative_name"):
            for value in shown.get(field, ()):
                if value:
                    return Principal(f"certificate:{value.decode()}")
        raise Unauthenticated(_NO_CREDENTIALS)

    def _of_token(self, token: str | None) -> Principal | None:
        if token is None:
            return None
        if self._jwt_keys is not None and token.count(".") == 2:
            return self._jwt_keys.value().principal(token)
        return None if self._tokens is None else self._tokens.value().principal(token)


def scraping(metrics_token_file: str) -> Callable[[str], bool]:
    """
    Return a function that says whether a header Authorization ("" for none) may read /metrics.

    It needs a token of the file that has the scope metrics; without a file ("") everybody may read
    it. Raises FileInvalid if the file is missing or wrong.
    """
    if not metrics_token_file:
        return lambda authorization: True
    allowed = tokens.watched("--metrics-token-file", Path(metrics_token_file))

    def may_scrape(authorization: str) -> bool:
        token = _bearer(authorization)
        principal = None if token is None else allowed.value().principal(token)
        return principal is not None and METRICS in principal.scopes

    return may_scrape


def _bearer(authorization: str) -> str | None:
    """The token of `Bearer TOKEN`; None for another scheme."""
    scheme, _, token = authorization.partition(" ")
    return token if scheme.lower() == "bearer" else None


def _host(context: Context) -> str:
    peer = context.peer()
    return peer.rpartition(":")[0] if peer.startswith(("ipv4:", "ipv6:")) else peer
