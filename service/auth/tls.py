"""TLS: the server's certificate and key, and the CAs that sign client certificates."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from service.watched_files import WatchedFiles

_HOST_NAMES = ("DNS", "IP Address")

NO_PROXY = (("grpc.enable_http_proxy", 0),)
"""Options of a channel to the machine's own server, whatever proxies the environment names."""


@dataclass(frozen=True)
class Certificates:
    """The certificates of a server, as PEM."""

    certificate: bytes
    """The server's certificate, followed by intermediate certificates."""
    key: bytes
    name: str
    """One of the certificate's host names; a wildcard is replaced by a name that it covers."""
    expires_unix_seconds: float
    client_ca: bytes | None
    """CAs that sign client certificates; None to ask for none."""
    client_ca_expires_unix_seconds: float | None
    """When the first of these CAs expires."""


def watched(certificate: str, key: str, client_ca: str) -> WatchedFiles[Certificates]:
    """
    Read the certificates, and read them again when a file changes.

    Args:
        certificate: Path of the server's certificate, followed by intermediate certificates.
        key: Path of its private key.
        client_ca: Path of the CAs that sign client certificates; empty to ask clients for none.

    Raises:
        FileInvalid: a file is missing, expired or wrong, or the key is of another certificate.
    """
    paths = [Path(path) for path in (certificate, key, client_ca) if path]
    flags = "--tls-certificate, --tls-key" + (", --tls-client-ca" if client_ca else "")
    return WatchedFiles(flags, paths, lambda: _read(*paths))


def server_credentials(certificates: WatchedFiles[Certificates]) -> grpc.ServerCredentials:
    """Return credentials for a port; each new connection gets the certificates as they are then."""
    current = certificates.value()
    return grpc.dynamic_ssl_server_credentials(
        _configuration(current),
        lambda: _configuration(certificates.value()),
        require_client_authentication=current.client_ca is not None,
    )


def own_channel(target: str, certificates: Certificates) -> grpc.Channel:
    """
    Open a channel to the server with its own files: it trusts the server's certificate alone.

    If the server asks for a client certificate, the channel shows the same certificate.
    """
    return grpc.secure_channel(
        target,
        grpc.ssl_channel_credentials(
            certificates.certificate, certificates.key, certificates.certificate
        ),
        [("grpc.ssl_target_name_override", certificates.name), *NO_PROXY],
    )


def _configuration(certificates: Certificates) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(certificates.key, certificates.certificate)], root_certificates=certificates.client_ca
    )


def _read(certificate: Path, key: Path, client_ca: Path | None = None) -> Certificates:
    """Read the files and try a handshake with them. Raises OSError or ValueError if it fails."""
    content = certificate.read_bytes(), key.read_bytes()
    shown = _peer_certificate(certificate, key)
    names = [value for kind, value in shown.get("subjectAltName", ()) if kind in _HOST_NAMES]
    if not names:
        raise ValueError(
            f"{certificate} names no host; it needs a subject alternative name for clients to check"
        )
    return Certificates(
        *content,
        name=names[0].replace("*", "any"),
        expires_unix_seconds=ssl.cert_time_to_seconds(shown["notAfter"]),
        client_ca=client_ca.read_bytes() if client_ca else None,
        client_ca_expires_unix_seconds=_first_ca_expires(client_ca) if client_ca else None,
    )


def _peer_certificate(certificate: Path, key: Path) -> dict[str, Any]:
    """
    The fields of the certificate as a client gets them that trusts it, after a handshake in memory.
    """
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    try:
        client.load_verify_locations(certificate)
    except ssl.SSLError as error:
        why = error.reason or "not readable"
        raise ValueError(f"{certificate} must be a PEM file of a certificate: {why}") from error
    try:
        # Without a password here, OpenSSL would ask for one at the terminal.
        server.load_cert_chain(certificate, key, password="")
    except ssl.SSLError as error:
        why = error.reason or "not readable"
        raise ValueError(
            f"{key} must be a PEM file of the private key of {certificate}, without a password: "
            + ("it is another's" if why == "KEY_VALUES_MISMATCH" else why)
        ) from error
    try:
        return _handshake(server, client)
    except ssl.SSLError as error:
        why = getattr(error, "verify_message", None) or error.reason or "not readable"
        raise ValueError(
            f"{certificate} must be the certificate of a server, and be valid now: {why}"
        ) from error


def _handshake(server: ssl.SSLContext, client: ssl.SSLContext) -> dict[str, Any]:
    """Hold the handshake; return the fields of the server's certificate."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking = client.wrap_bio(to_client, to_server)
    ends = [asking, server.wrap_bio(to_server, to_client, server_side=True)]
    while ends:
        end = ends.pop(0)
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            ends.append(end)
    return asking.getpeercert() or {}


def _first_ca_expires(client_ca: Path) -> float:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(client_ca)
    except ssl.SSLError as error:
        why = error.reason or "not readable"
        raise ValueError(f"{client_ca} must be a PEM file of certificates: {why}") from error
    cas = context.get_ca_certs()
    if not cas:
        raise ValueError(f"{client_ca} has no certificate of a CA")
    return min(ssl.cert_time_to_seconds(str(each["notAfter"])) for each in cas)
