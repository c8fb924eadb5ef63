"""Certificate files: what is read from them, and which are refused."""

from __future__ import annotations

import subprocess
import time
from datetime import timedelta
from pathlib import Path

import pytest

from service.auth import tls
from service.errors import FileInvalid
from tests.support.certificates import Authority, Pair

NOW = time.time()
AUTHORITY = Authority()
ONE, TWO = AUTHORITY.signed("one", names=("ntm.example",)), AUTHORITY.signed("two")
EXPIRED = AUTHORITY.signed("late", lasts=timedelta(days=-1))


def read(folder: Path, pair: Pair, client_ca: bytes = b"") -> tls.Certificates:
    """What is read from this pair, and from the CAs of clients if there are any."""
    certificate, key = pair.written(folder, "server")
    ca = folder / "ca.pem"
    ca.write_bytes(client_ca)
    return tls.watched(str(certificate), str(key), str(ca) if client_ca else "").value()


def test_what_a_certificate_says_is_read(tmp_path: Path) -> None:
    """The fields are a host name and the expiry, and the expiry of the clients' CA."""
    found = read(tmp_path, ONE, AUTHORITY.certificate + Authority().certificate)

    assert (found.certificate, found.key, found.name) == (ONE.certificate, ONE.key, "ntm.example")
    day = 24 * 60 * 60
    assert found.expires_unix_seconds == pytest.approx(NOW + day, abs=60)
    assert found.client_ca_expires_unix_seconds == pytest.approx(NOW + 10 * day, abs=60)
    assert read(tmp_path, ONE).client_ca is None


def test_an_unencrypted_key_is_asked_for(tmp_path: Path) -> None:
    """OpenSSL asks for no password at the terminal."""
    _, key = ONE.written(tmp_path, "plain")
    command = ["openssl", "ec", "-in", str(key), "-aes128", "-passout", "pass:secret"]
    locked = subprocess.run(command, capture_output=True, check=True).stdout
    with pytest.raises(FileInvalid, match=r"server\.key must be .*, without a password"):
        read(tmp_path, Pair(ONE.certificate, locked))


@pytest.mark.parametrize(
    ("pair", "client_ca", "message"),
    [
        (Pair(ONE.certificate, TWO.key), b"", "server.key must be .* of .*: it is another's"),
        (Pair(ONE.certificate[:300], ONE.key), b"", "server.pem must be a PEM file of a cert"),
        (Pair(ONE.certificate, ONE.key[:100]), b"", "server.key must be a PEM file of the private"),
        (Pair(ONE.key, ONE.certificate), b"", "server.pem must be a PEM file of a certificate"),
        (Pair(b"", b""), b"", "server.pem must be a PEM file of a certificate"),
        (EXPIRED, b"", "certificate has expired"),
        (AUTHORITY.signed("nameless", names=()), b"", "names no host"),
        (ONE, AUTHORITY.certificate[:300], "ca.pem must be a PEM file of certificates"),
        (ONE, TWO.certificate, "ca.pem has no certificate of a CA"),
    ],
)
def test_files_that_do_not_work_are_refused(
    tmp_path: Path, pair: Pair, client_ca: bytes, message: str
) -> None:
    """Files that are mixed up, incomplete, expired or of another kind; the error has the reason."""
    with pytest.raises(FileInvalid, match=message):
        read(tmp_path, pair, client_ca)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """The error has its path."""
    certificate, key = ONE.written(tmp_path, "server")
    key.unlink()
    with pytest.raises(FileInvalid, match=r"--tls-key: cannot read .*server\.key: No such file"):
        tls.watched(str(certificate), str(key), "")
