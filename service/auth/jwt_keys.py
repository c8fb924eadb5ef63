"""Signed tokens (JWT): the public keys that verify them, and their principals."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.auth.principal import Principal
from service.errors import FileInvalid
from service.watched_files import WatchedFiles

if TYPE_CHECKING:
    from jwt.algorithms import AllowedPublicKeys

_LEEWAY_SECONDS = 30
"""Largest difference between the clocks of the issuer and of this server."""

_MIN_RSA_BITS = 2048

_MAX_REMEMBERED = 1024
"""Tokens that are remembered, so that not every call verifies a signature."""


@dataclass(frozen=True, slots=True)
class Key:
    """A public key and the only algorithm that it may verify."""

    id: str | None
    """The `kid` that tokens name it by; None fits every token."""
    algorithm: str
    key: AllowedPublicKeys


class JwtKeys:
    """Verifies the tokens of one issuer for one audience."""

    def __init__(
        self,
        keys: list[Key],
        issuer: str,
        audience: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """The clock gives Unix seconds."""
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._clock = clock
        self._verified = lru_cache(_MAX_REMEMBERED)(self._verify)

    def principal(self, token: str) -> Principal | None:
        """Return the principal of a token, or None if anything about the token is wrong."""
        try:
            found = self._verified(token)
        except _TokenInvalid:
            return None
        assert found.expires_unix_seconds is not None, "exp is required"
        return found if self._clock() < found.expires_unix_seconds else None

    def _verify(self, token: str) -> Principal:
        """
        Verify a token. Raises _TokenInvalid, which is not remembered: a token may become valid
        later.
        """
        claims = self._claims(token)
        name, scopes = claims["sub"], claims.get("scope", "")
        if not name or not isinstance(scopes, str):
            raise _TokenInvalid
        expires = float(claims["exp"]) + _LEEWAY_SECONDS
        return Principal(f"jwt:{name}", frozenset(scopes.split()), expires)

    def _claims(self, token: str) -> dict[str, Any]:
        """
        The claims of a token, which must be signed by one of the keys, and valid for this server
        now.
        """
        import jwt

        try:
            key_id = jwt.get_unverified_header(token).get("kid")
        except (jwt.PyJWTError, RecursionError) as error:
            raise _TokenInvalid from error
        for key in self._keys:
            if key_id is not None and key.id not in (None, key_id):
                continue
            try:
                return jwt.decode(
                    token,
                    key.key,
                    # The algorithm comes from the key, not from the token. So neither "none" nor a
                    # shared secret works.
                    algorithms=[key.algorithm],
                    audience=self._audience,
                    issuer=self._issuer,
                    leeway=_LEEWAY_SECONDS,
                    options={"require": ["exp", "sub", "aud", "iss"]},
                )
            except (jwt.PyJWTError, RecursionError):
                continue
        raise _TokenInvalid


class _TokenInvalid(Exception):
    """A token cannot be trusted. The answer to the caller does not give the reason."""


def watched(path: Path, issuer: str, audience: str) -> WatchedFiles[JwtKeys]:
    """
    Read keys from a JWKS or PEM file, and read them again when the file changes.

    Raises:
        FileInvalid: the file has no key that fits, or PyJWT is not installed.
    """
    try:
        import jwt  # noqa: F401 - fails at start, not at the first call
    except ModuleNotFoundError as error:
        raise FileInvalid(
            "--jwt-keys needs PyJWT; in a checkout of the project, run "
            "`pip install ./client '.[jwt]'`, or build the image with "
            "`make image EXTRAS='otel redis jwt'`"
        ) from error
    return WatchedFiles(
        "--jwt-keys",
        [path],
        lambda: JwtKeys(read(path.read_text(encoding="utf-8")), issuer, audience),
    )


def read(text: str) -> list[Key]:
    """Return the keys of a JWKS or PEM text that fit. Raises ValueError if no key fits."""
    found = list(_of_jwks(text) if text.lstrip().startswith("{") else _of_pem(text))
    keys = [key for key in found if key is not None]
    if not keys:
        raise ValueError(
            f"no key fits ({len(found)} found); use RSA of at least {_MIN_RSA_BITS} bits "
            "(RS256), EC on P-256 (ES256) or Ed25519 (EdDSA)"
        )
    return keys


def _of_jwks(text: str) -> Iterator[Key | None]:
    import jwt

    try:
        keys = json.loads(text).get("keys")
    except RecursionError as error:
        raise ValueError("the JWKS is nested too deeply") from error
    if not isinstance(keys, list) or not all(isinstance(fields, dict) for fields in keys):
        raise ValueError("the JWKS has no list of objects named keys")
    for fields in keys:
        if fields.get("kty") == "oct" or "d" in fields:
            raise ValueError("the JWKS holds a secret key; give public keys only")
        if fields.get("use", "sig") != "sig":
            continue
        try:
            key = jwt.PyJWK(fields, algorithm=fields.get("alg"))
        except jwt.PyJWTError:
            yield None  # a type of key that PyJWT does not support
            continue
        fitting = _fitting(key.key, fields.get("kid"))
        is_for_it = fitting and fields.get("alg", fitting.algorithm) == fitting.algorithm
        yield fitting if is_for_it else None


def _of_pem(text: str) -> Iterator[Key | None]:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    if "PRIVATE KEY" in text:
        raise ValueError("the file holds a private key; give public keys only")
    for block in re.findall(r"-----BEGIN [^-]*-----.*?-----END [^-]*-----", text, re.DOTALL):
        try:
            key = load_pem_public_key(block.encode())
        except UnsupportedAlgorithm:
            yield None
            continue
        yield _fitting(key, None)


def _fitting(key: Any, key_id: str | None) -> Key | None:
    """The key with its algorithm; None for a key that does not fit."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    if isinstance(key, rsa.RSAPublicKey) and key.key_size >= _MIN_RSA_BITS:
        return Key(key_id, "RS256", key)
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
        return Key(key_id, "ES256", key)
    if isinstance(key, ed25519.Ed25519PublicKey):
        return Key(key_id, "EdDSA", key)
    return None
