"""Signed tokens: which are valid, and above all which are not."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import sys
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from service.auth import jwt_keys
from service.auth.jwt_keys import JwtKeys
from service.auth.principal import Principal
from service.errors import FileInvalid
from tests.conftest import Clock

RSA = rsa.generate_private_key(65537, 2048)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()
PRIVATE: dict[str, Any] = {"RS256": RSA, "ES256": EC, "EdDSA": ED}
OTHER = rsa.generate_private_key(65537, 2048)


def pem(private: Any) -> str:
    """The public key of a private one."""
    encoding, layout = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    public: bytes = private.public_key().public_bytes(encoding, layout)
    return public.decode()


def jwks(**changes: Any) -> str:
    """All three public keys as a JWKS, each with its algorithm as its id."""
    keys = [
        RSAAlgorithm.to_jwk(RSA.public_key(), as_dict=True),
        ECAlgorithm.to_jwk(EC.public_key(), as_dict=True),
        OKPAlgorithm.to_jwk(ED.public_key(), as_dict=True),
    ]
    named = zip(PRIVATE, keys, strict=True)
    return json.dumps({"keys": [{**key, "kid": name, **changes} for name, key in named]})


def verifying(text: str, clock: Any = time.time) -> JwtKeys:
    """The keys of a file, for the issuer and the audience of `claims`."""
    return JwtKeys(jwt_keys.read(text), "https://issuer", "ntm", clock)


def claims(**changes: Any) -> dict[str, Any]:
    """The claims of a valid token; None leaves a claim out."""
    said = {
        "sub": "alice",
        "iss": "https://issuer",
        "aud": "ntm",
        "exp": int(time.time()) + 600,
        "scope": "read step email",
        **changes,
    }
    return {name: value for name, value in said.items() if value is not None}


def encoded(part: dict[str, Any]) -> bytes:
    """The header or the claims of a token, encoded."""
    return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=")


@pytest.mark.parametrize("algorithm", PRIVATE)
@pytest.mark.parametrize("text", [jwks(), "".join(map(pem, PRIVATE.values()))])
def test_a_valid_token_finds_its_principal(algorithm: str, text: str) -> None:
    """Each of three algorithms is accepted, with keys from a JWKS or a PEM file."""
    said = claims()
    token = jwt.encode(said, PRIVATE[algorithm], algorithm)
    scopes = frozenset(["read", "step", "email"])

    expected = Principal("jwt:alice", scopes, said["exp"] + 30.0)
    assert verifying(text).principal(token) == expected


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": int(time.time()) - 60},
        {"exp": None},
        {"nbf": int(time.time()) + 1_000_000},
        {"aud": "another service"},
        {"aud": None},
        {"iss": "https://attacker"},
        {"iss": None},
        {"sub": None},
        {"sub": ""},
        {"sub": 5},
        {"scope": ["read"]},
    ],
)
def test_a_token_with_a_wrong_claim_is_not_valid(changes: dict[str, Any]) -> None:
    """It has expired, is not valid yet, is for another audience, or names no subject."""
    token = jwt.encode(claims(**changes), RSA, "RS256")
    assert verifying(jwks()).principal(token) is None


def test_a_token_that_nobody_signed_is_not_valid() -> None:
    """A token without a signature is refused, whatever algorithm its header names."""
    for name in ("none", "None", "NONE", ""):
        token = b".".join([encoded({"alg": name, "typ": "JWT"}), encoded(claims()), b""])
        assert verifying(jwks()).principal(token.decode()) is None


@pytest.mark.parametrize("secret", [pem(RSA), pem(RSA).strip(), jwks()])
def test_a_public_key_is_no_shared_secret(secret: str) -> None:
    """A token is refused that is signed by HMAC with the public key as the secret."""
    signed = b".".join([encoded({"alg": "HS256", "typ": "JWT"}), encoded(claims())])
    signature = hmac.digest(secret.encode(), signed, hashlib.sha256)
    token = signed + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")

    assert verifying(pem(RSA)).principal(token.decode()) is None
    assert verifying(jwks()).principal(token.decode()) is None


@pytest.mark.parametrize("algorithm", ["RS512", "PS256", "HS256"])
def test_other_algorithms_are_not_valid(algorithm: str) -> None:
    """They are refused even with the right key."""
    key: Any = "x" * 64 if algorithm == "HS256" else RSA
    assert verifying(jwks()).principal(jwt.encode(claims(), key, algorithm)) is None


def test_another_key_or_a_changed_token_is_not_valid() -> None:
    """Refused are tokens of another key, changed tokens, incomplete tokens, and other texts."""
    keys = verifying(jwks())
    header, _, signature = jwt.encode(claims(), RSA, "RS256").split(".")
    changed = f"{header}.{encoded(claims(sub='root')).decode()}.{signature}"
    nested = base64.urlsafe_b64encode(b"[" * 12_000).decode()
    wrong = [
        jwt.encode(claims(), OTHER, "RS256"),
        jwt.encode(claims(), OTHER, "RS256", headers={"kid": "RS256"}),
        jwt.encode(claims(), RSA, "RS256", headers={"kid": "ES256"}),
        jwt.encode(claims(), RSA, "RS256", headers={"crit": ["exp"], "exp": 1}),
        jwt.encode(claims(), OTHER, "RS256", headers={"jwk": json.loads(pem_as_jwk(OTHER))}),
        changed,
        f"{header}.{signature}.",
        "a.b.c",
        "..",
        f"{nested}.{nested}.x",
    ]
    assert [keys.principal(token) for token in wrong] == [None] * len(wrong)


def pem_as_jwk(private: rsa.RSAPrivateKey) -> str:
    """A public key in the form that a token's header may contain."""
    return RSAAlgorithm.to_jwk(private.public_key())


def test_a_token_once_verified_still_expires(clock: Clock) -> None:
    """The server remembers the principal of a token, but checks its expiry at each call."""
    clock.seconds = time.time()
    keys = verifying(jwks(), clock)
    token = jwt.encode(claims(), ED, "EdDSA")
    assert keys.principal(token) is not None
    clock.seconds += 629.0
    assert keys.principal(token) is not None
    clock.seconds += 2.0
    assert keys.principal(token) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no key fits \\(0 found\\)"),
        ("{}", "the JWKS has no list of objects named keys"),
        ('{"keys": [5]}', "the JWKS has no list of objects named keys"),
        ('{"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}', "the JWKS holds a secret key"),
        (jwks(d="AAAA"), "the JWKS holds a secret key"),
        (jwks(alg="RS512"), "no key fits \\(3 found\\); use RSA of at least 2048 bits"),
        (jwks(use="enc"), "no key fits \\(0 found\\)"),
        (jwks(kty="new"), "no key fits \\(3 found\\)"),
        ("-----BEGIN PRIVATE KEY-----", "the file holds a private key"),
        (pem(ec.generate_private_key(ec.SECP384R1())), "no key fits \\(1 found\\)"),
    ],
)
def test_a_file_without_a_fitting_key_is_refused(text: str, message: str) -> None:
    """Secret keys are refused too, because they do not belong on this server."""
    with pytest.raises(ValueError, match=message):
        jwt_keys.read(text)


def test_an_rsa_key_that_is_short_is_refused() -> None:
    """A key of 1,024 bits can be factored."""
    short = rsa.generate_private_key(65537, 1024)  # noqa: S505 - it is to be refused
    with pytest.raises(ValueError, match="RSA of at least 2048 bits"):
        jwt_keys.read(pem(short))


def test_a_server_without_pyjwt_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error comes at start, and only if --jwt-keys is set."""
    monkeypatch.setitem(sys.modules, "jwt", None)
    with pytest.raises(FileInvalid, match=r"pip install \./client '\.\[jwt\]'"):
        jwt_keys.watched(tmp_path / "keys", "issuer", "audience")
