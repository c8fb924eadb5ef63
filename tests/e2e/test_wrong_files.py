"""Files that settings name: wrong at the start they stop it, later the server goes on without."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import grpc
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from jwt.algorithms import OKPAlgorithm

from ntm.v1 import ntm_pb2 as pb
from ntm.v1 import ntm_pb2_grpc
from service.errors import FileInvalid
from service.settings import Settings
from tests.conftest import Running, Serve
from tests.support.certificates import Authority
from tests.support.tokens import bearer, token_line

TRUSTED = Authority("trusted")
KEY = ed25519.Ed25519PrivateKey.generate()

FILES = [
    field.name for field in fields(Settings) if "file" in field.metadata["help"].lower().split()
]
"""Every setting that names a file."""

WRONG: dict[str, Callable[[Path], object]] = {
    "missing": lambda path: None,
    "folder": lambda path: path.mkdir(),
    "link to itself": lambda path: path.symlink_to(path.name),
    "no text": lambda path: path.write_bytes(b"\xff\xfe\x00\x80 no text"),
}
"""What no file that a setting names may be."""

WRONG_TEXTS = {
    "empty": "",
    "a word": "nonsense",
    "nested": "[" * 100_000,
    "keys of no type": '{"keys": [{"kty": 5}]}',
    "keys without numbers": '{"keys": [{"kty": "RSA", "alg": "RS256"}]}',
    "keys with wrong numbers": '{"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "AA"}]}',
    "keys with a list": '{"keys": [{"kty": "RSA", "n": [], "e": {}}]}',
    "PEM of nothing": "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
    "certificate of nothing": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
}
"""Texts that are wrong in most of the files."""

ALLOWED = {("tokens_file", "empty"), ("metrics_token_file", "empty")}
"""A file of no tokens lets nobody in."""

CASES = [
    (name, wrong)
    for name in FILES
    for wrong in [*WRONG, *WRONG_TEXTS]
    # Any text may be a password.
    if (name, wrong) not in ALLOWED and not (name == "store_password_file" and wrong in WRONG_TEXTS)
]


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, Any]:
    """Settings that name every file, all of them right."""
    certificate, key = TRUSTED.signed("server").written(tmp_path, "server")
    texts = {
        "tls_client_ca": TRUSTED.certificate.decode(),
        "tokens_file": token_line("alice", "secret", "read", "step"),
        "jwt_keys": '{"keys": [' + OKPAlgorithm.to_jwk(KEY.public_key()) + "]}",
        "metrics_token_file": token_line("prometheus", "scrape", "metrics"),
        "store_password_file": "secret",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    named = {name: str(tmp_path / name) for name in texts}
    return {
        **named,
        "tls_certificate": str(certificate),
        "tls_key": str(key),
        "jwt_issuer": "issuer",
        "jwt_audience": "ntm",
        "store": "redis://localhost:1",
    }


def replace(path: Path, wrong: str) -> None:
    """Put something wrong in a file's place."""
    path.unlink()
    if wrong in WRONG:
        WRONG[wrong](path)
    else:
        path.write_text(WRONG_TEXTS[wrong])


def put_right(path: Path, right: Path) -> None:
    """Move the right file to its place."""
    if path.is_dir():
        path.rmdir()
    right.rename(path)


def test_the_settings_that_name_files_are_all_tried(settings: dict[str, Any]) -> None:
    """A new one belongs in the fixture."""
    assert set(FILES) <= settings.keys()
    assert len(FILES) == 7


@pytest.mark.parametrize(("name", "wrong"), CASES)
async def test_a_wrong_file_stops_the_start(
    serve: Serve, settings: dict[str, Any], name: str, wrong: str
) -> None:
    """The error is one sentence, which names the setting or the file."""
    replace(Path(settings[name]), wrong)
    with pytest.raises(FileInvalid) as raised:
        async with serve(**settings):
            pytest.fail("the server serves")
    message = raised.value.message
    assert name in message.replace("-", "_") or settings[name] in message
    assert "\n" not in message


async def code(running: Running, token: str) -> grpc.StatusCode:
    """The status of a call with a token, over a new connection with TLS."""
    pair = TRUSTED.signed("client")
    credentials = grpc.ssl_channel_credentials(TRUSTED.certificate, pair.key, pair.certificate)
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.secure_channel(running.address, credentials, options) as channel:
        stub: Any = ntm_pb2_grpc.NtmServiceStub(channel)
        call = stub.ListModels(pb.ListModelsRequest(), metadata=bearer(token), timeout=30)
        found: grpc.StatusCode = await call.code()
        return found


@pytest.mark.parametrize(
    ("name", "wrong"), [(name, wrong) for name, wrong in CASES if name != "store_password_file"]
)
async def test_a_file_that_becomes_wrong_changes_nothing(
    serve: Serve,
    settings: dict[str, Any],
    name: str,
    wrong: str,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    """It is logged, once; calls are let in as before, and a right file is used at once."""
    del settings["store"], settings["store_password_file"]
    path, right = Path(settings[name]), tmp_path / "right"
    shutil.copy(path, right)
    claims = {"iss": "issuer", "aud": "ntm", "sub": "bob", "exp": 2_000_000_000, "scope": "read"}
    signed = jwt.encode(claims, KEY, "EdDSA")
    pair = TRUSTED.signed("client")
    credentials = grpc.ssl_channel_credentials(TRUSTED.certificate, pair.key, pair.certificate)
    async with serve(credentials, **settings) as running:
        replace(path, wrong)
        for token in ("secret", signed, "secret", signed):
            assert await code(running, token) is grpc.StatusCode.OK
            may_scrape = running.server._monitoring._may_scrape
            assert may_scrape("Bearer scrape")
        (record,) = (each for each in caplog.records if each.levelno >= logging.WARNING)
        assert record.message == "files not taken over"
        assert "\n" not in vars(record)["why"]
        assert not record.exc_info
        caplog.clear()
        put_right(path, right)
        assert await code(running, "secret") is grpc.StatusCode.OK
        assert not caplog.records or caplog.records[-1].levelno < logging.WARNING
