"""Authentication: the principal of a call, from its token or the certificate of its connection."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeAlias

import grpc
import grpc.aio

from service.auth import jwt_keys, tokens
from service.auth.principal import Principal
from service.errors import Unauthenticated
from service.settings import Settings

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Metadata: TypeAlias = "Iterable[tuple[str, str | bytes]] | None"

_WHO_CALLS = (
    "this server needs to know who calls: send a token that is valid in the metadata "
    "`authorization: Bearer TOKEN`"
)


class Authentication:
    """Knows the tokens, keys and certificates that the settings trust."""

    def __init__(self, settings: Settings) -> None:
        """Read the files that the settings name. Raises FileInvalid."""
        self._tokens = (
            tokens.watched("tokens_file", Path(settings.tokens_file))
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
        """Whether callers have to say who they are."""

    def by_token(self, metadata: Metadata) -> Principal | None:
        """
        Who makes a call with this metadata; None where that is for `by_connection` to say.

        Raises:
            Unauthenticated: there is no token, or not one that is valid; the words do not say why.
        """
        if not self.is_on:
            return None
        shown = [value for key, value in metadata or () if key == "authorization"]
        if not shown and self._trusts_certificates:
            return None
        found = None
        if len(shown) == 1 and isinstance(shown[0], str):
            found = self._of_token(shown[0])
        if found is None:
            raise Unauthenticated(_WHO_CALLS)
        return found

    def by_connection(self, context: Context) -> Principal:
        """
        Who makes a call without a token: as the certificate of its connection says.

        Its subject's common name counts, else its first alternative name. Where nothing is
        configured, it is the peer's host, not authenticated. Raises Unauthenticated.
        """
        if not self.is_on:
            return Principal(host(context), is_authenticated=False)
        shown = context.auth_context() if self._trusts_certificates else {}
        for field in ("x509_common_name", "x509_subject_alternative_name"):
            for value in shown.get(field, ()):
                if value:
                    return Principal(f"certificate:{value.decode()}")
        raise Unauthenticated(_WHO_CALLS)

    def _of_token(self, authorization: str) -> Principal | None:
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer":
            return None
        if self._jwt_keys is not None and token.count(".") == 2:
            return self._jwt_keys.value().principal(token)
        return None if self._tokens is None else self._tokens.value().principal(token)


def host(context: Context) -> str:
    """The host that a call comes from."""
    peer = context.peer()
    return peer.rpartition(":")[0] if peer.startswith(("ipv4:", "ipv6:")) else peer
