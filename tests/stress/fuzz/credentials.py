"""Files of tokens and of keys that are damaged, and tokens of callers who made them up."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import strategies as st

from service.auth import jwt_keys
from service.auth.authentication import Authentication
from service.auth.tokens import Tokens
from service.errors import Unauthenticated
from service.settings import Settings
from tests.stress.fuzz.edits import damaged
from tests.stress.fuzz.json_texts import nested, spoiled

Metadata = Sequence[tuple[str, str | bytes]]

_TOKEN = "ntm_a-token-of-alice"
_ISSUER, _AUDIENCE = "https://issuer", "ntm"

_KEY = ec.generate_private_key(ec.SECP256R1())
_STRANGER = ec.generate_private_key(ec.SECP256R1())
_CLAIMS = {
    "sub": "bob",
    "iss": _ISSUER,
    "aud": _AUDIENCE,
    "exp": time.time() + 1e6,
    "scope": "read",
}


def _jwk(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey) -> str:
    algorithm: dict[type, type[jwt.algorithms.Algorithm]] = {
        ec.EllipticCurvePrivateKey: jwt.algorithms.ECAlgorithm,
        rsa.RSAPrivateKey: jwt.algorithms.RSAAlgorithm,
        ed25519.Ed25519PrivateKey: jwt.algorithms.OKPAlgorithm,
    }
    kind = next(made for known, made in algorithm.items() if isinstance(key, known))
    return str(kind.to_jwk(key.public_key()))


_JWKS = [
    json.dumps({"keys": [{**json.loads(_jwk(key)), "kid": "1", "use": "sig"}]})
    for key in (
        _KEY,
        rsa.generate_private_key(public_exponent=65_537, key_size=2048),
        ed25519.Ed25519PrivateKey.generate(),
    )
]
_PEM = _KEY.public_key().public_bytes(
    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
)
_LINE = json.dumps(
    {
        "principal": "alice",
        "scopes": ["read", "step"],
        "sha256": hashlib.sha256(_TOKEN.encode()).hexdigest(),
        "expires": "2999-01-31T12:00:00Z",
    }
)
_SIGNED = [
    jwt.encode(_CLAIMS, _KEY, "ES256"),
    jwt.encode({**_CLAIMS, "exp": 1}, _KEY, "ES256"),
    jwt.encode({**_CLAIMS, "aud": "other"}, _KEY, "ES256"),
    jwt.encode(_CLAIMS, _STRANGER, "ES256", {"kid": "1"}),
    jwt.encode(_CLAIMS, "", "none"),
    jwt.encode(_CLAIMS, _PEM.hex(), "HS256"),
]
_RIGHT = {_TOKEN: "token:alice", _SIGNED[0]: "jwt:bob"}
"""The only tokens that let anyone in, and whom."""

token_files = damaged(spoiled([_LINE]).map(str.encode)) | nested
"""Files of tokens."""

key_files = damaged(spoiled(_JWKS).map(str.encode) | st.just(_PEM)) | nested
"""Files of keys."""


def _parts(header: bytes, claims: bytes, signature: bytes) -> str:
    """A token of three parts, whatever they are."""
    encoded = (base64.urlsafe_b64encode(part).rstrip(b"=") for part in (header, claims, signature))
    return b".".join(encoded).decode()


_headers = damaged(
    spoiled([json.dumps({"alg": "ES256", "typ": "JWT", "kid": "1"})]).map(str.encode)
)
_claims = damaged(spoiled([json.dumps(_CLAIMS)]).map(str.encode)) | nested
_tokens = st.one_of(
    st.sampled_from((_TOKEN, *_SIGNED)),
    damaged(st.sampled_from((_TOKEN, *_SIGNED)).map(str.encode)).map(
        lambda token: token.decode("latin-1")
    ),
    st.builds(_parts, _headers, _claims, st.binary(max_size=70)),
    st.text(max_size=20),
)
metadata: st.SearchStrategy[Metadata] = st.lists(
    st.tuples(
        st.sampled_from(("authorization", "authorization", "Authorization", "x-other")),
        st.builds(
            "{}{}".format,
            st.sampled_from(("Bearer ", "bearer ", "Basic ", "Bearer  ", "")),
            _tokens,
        )
        | st.binary(max_size=20),
    ),
    max_size=2,
)
"""What a call says of who makes it."""


@contextmanager
def tokens_reader() -> Iterator[Callable[[bytes], None]]:
    """Hand out what reads a file of tokens, which is refused with a ValueError or is right."""

    def check(content: bytes) -> None:
        with suppress(ValueError):
            Tokens(content.decode().splitlines()).principal(_TOKEN)

    yield check


@contextmanager
def keys_reader() -> Iterator[Callable[[bytes], None]]:
    """Hand out what reads a file of keys, which is refused with a ValueError or has some."""

    def check(content: bytes) -> None:
        with suppress(ValueError):
            assert jwt_keys.read(content.decode())

    yield check


@contextmanager
def doorkeeper() -> Iterator[Callable[[Metadata], None]]:
    """Hand out what lets in those, and only those, who show a right token."""
    with TemporaryDirectory() as folder:
        tokens_file, keys = Path(folder) / "tokens.jsonl", Path(folder) / "keys.pem"
        tokens_file.write_text(_LINE, encoding="utf-8")
        keys.write_bytes(_PEM)
        authentication = Authentication(
            Settings(
                tokens_file=str(tokens_file),
                jwt_keys=str(keys),
                jwt_issuer=_ISSUER,
                jwt_audience=_AUDIENCE,
            )
        )

        def check(shown: Metadata) -> None:
            try:
                principal = authentication.by_token(shown)
            except Unauthenticated:
                principal = None
            values = [value for key, value in shown if key == "authorization"]
            token = values[0][7:] if values and isinstance(values[0], str) else ""
            # The last character of a signature has bits that count for nothing.
            right = {known: name for known, name in _RIGHT.items() if known[:-1] == token[:-1]}
            if principal is not None:
                assert [principal.name] == list(right.values())
                assert len(values) == 1

        yield check
