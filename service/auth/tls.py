"""TLS: the server's certificate and key, and the authority that clients' certificates are from."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from service.watched_files import Reloaded

_HOST_NAMES = ("DNS", "IP Address")


@dataclass(frozen=True)
class Certificates:
    """What the server shows its clients, and wants of theirs; all PEM."""

    certificate: bytes
    key: bytes
    name: str
    """One of the names that the certificate is for."""
    expires_unix_seconds: float
    client_ca: bytes | None
    client_ca_expires_unix_seconds: float | None
    """When the first of the authorities expires."""


def watched(certificate: str, key: str, client_ca: str) -> Reloaded[Certificates]:
    """
    The certificates in these files, read again when a file was replaced.

    Args:
        certificate: Path of the certificate, followed by those between it and its authority.
        key: Path of its private key.
        client_ca: Path of the authorities whose clients are let in; empty to let in every client.

    Raises:
        FileInvalid: a file is missing, or they do not belong together.
    """
    paths = [Path(path) for path in (certificate, key, client_ca) if path]
    return Reloaded("TLS", paths, lambda: _read(*paths))


def server_credentials(certificates: Reloaded[Certificates]) -> grpc.ServerCredentials:
    """Credentials of a port: every new connection gets the certificates as they are then."""
    current = certificates.value()
    return grpc.dynamic_ssl_server_credentials(
        _configuration(current),
        lambda: _configuration(certificates.value()),
        require_client_authentication=current.client_ca is not None,
    )


def own_channel(target: str, certificates: Certificates) -> grpc.Channel:
    """
    A channel from the server's own machine: trusts no certificate but the server's.

    It shows that same certificate if the server asks for one.
    """
    return grpc.secure_channel(
        target,
        grpc.ssl_channel_credentials(
            certificates.certificate, certificates.key, certificates.certificate
        ),
        [("grpc.ssl_target_name_override", certificates.name)],
    )


def _configuration(certificates: Certificates) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(certificates.key, certificates.certificate)], root_certificates=certificates.client_ca
    )


def _read(certificate: Path, key: Path, client_ca: Path | None = None) -> Certificates:
    """Read the files; raises OSError or ValueError unless a handshake with them works."""
    content = certificate.read_bytes(), key.read_bytes()
    shown = _shown(certificate, key)
    names = [value for kind, value in shown.get("subjectAltName", ()) if kind in _HOST_NAMES]
    if not names:
        raise ValueError(f"{certificate} names no host: clients want a subject alternative name")
    return Certificates(
        *content,
        name=names[0].replace("*", "any"),
        expires_unix_seconds=ssl.cert_time_to_seconds(shown["notAfter"]),
        client_ca=client_ca.read_bytes() if client_ca else None,
        client_ca_expires_unix_seconds=_authorities_expire(client_ca) if client_ca else None,
    )


def _shown(certificate: Path, key: Path) -> dict[str, Any]:
    """The certificate as a client who trusts it sees it, in a handshake held in memory."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    try:
        # The password keeps OpenSSL from asking for one at the terminal.
        server.load_cert_chain(certificate, key, password="")
        client.load_verify_locations(certificate)
        return _handshake(server, client)
    except ssl.SSLError as error:
        why = getattr(error, "verify_message", None) or error.reason or "not readable"
        raise ValueError(
            f"{certificate} and {key} must be a server's certificate, valid now, and its private "
            f"key without a password, as PEM: {why}"
        ) from error


def _handshake(server: ssl.SSLContext, client: ssl.SSLContext) -> dict[str, Any]:
    """What the server's certificate says, once both have agreed."""
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


def _authorities_expire(client_ca: Path) -> float:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(client_ca)
    except ssl.SSLError as error:
        why = error.reason or "not readable"
        raise ValueError(f"{client_ca} must hold certificates, as PEM: {why}") from error
    authorities = context.get_ca_certs()
    if not authorities:
        raise ValueError(f"{client_ca} holds no certificate of an authority")
    return min(ssl.cert_time_to_seconds(str(each["notAfter"])) for each in authorities)
