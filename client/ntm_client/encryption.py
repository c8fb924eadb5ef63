"""TLS of a client: whom it trusts, which certificate it shows, which name it expects."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

import grpc

from ntm_client import arguments
from ntm_client.errors import InvalidRequest


class Tls:
    """An encrypted connection's settings, made by `tls`."""

    def __init__(
        self,
        ca: Path | str | None,
        certificate: Path | str | None,
        key: Path | str | None,
        server_name: str | None,
    ) -> None:
        """Read the files and check them. Raises as `tls` does."""
        if server_name is not None:
            arguments.text("server_name", server_name, "a name, such as 'ntm.example', or None")
        given = {
            name: None if file is None else arguments.path(name, file)
            for name, file in (("ca", ca), ("key", key), ("certificate", certificate))
        }
        self._files = given["ca"], given["certificate"], given["key"]
        if (given["certificate"] is None) != (given["key"] is None):
            raise InvalidRequest(
                f"the certificate is {given['certificate']} and its key {given['key']}; give both, "
                "or neither"
            )
        contents = [None if path is None else path.read_bytes() for path in given.values()]
        if any(contents):
            self.context()
        self.credentials = grpc.ssl_channel_credentials(*contents)
        self.server_name = server_name
        """The name that the server's certificate must have; None for the address's host."""
        self.shows_certificate = certificate is not None

    def context(self, *, checks_name: bool = True) -> ssl.SSLContext:
        """
        The same for Python's TLS, which tells apart why a connection fails.

        Raises as `tls` does, since it reads the files again.
        """
        context = _context(*self._files)
        context.check_hostname = checks_name
        return context


def tls(
    ca: Path | str | None = None,
    certificate: Path | str | None = None,
    key: Path | str | None = None,
    server_name: str | None = None,
) -> Tls:
    """
    The settings of an encrypted connection.

    Args:
        ca: PEM file of the CAs to trust; None for gRPC's own.
        certificate: PEM file of the client certificate, for a server that asks for one.
        key: PEM file of the client certificate's private key, without a password.
        server_name: The name that the server's certificate must have, if it is not the host of the
            address.

    Raises:
        OSError: a file cannot be read.
        InvalidRequest: a file holds something else, or there is a certificate without a key, or a
            key without a certificate.
    """
    return Tls(ca, certificate, key, server_name)


def unverified() -> ssl.SSLContext:
    """Settings of a connection that accepts every certificate, to look at it; sends nothing."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    return context


def _context(ca: Path | None, certificate: Path | None, key: Path | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN  # as gRPC
    context.set_alpn_protocols(["h2"])
    try:
        if ca is None:
            roots = os.environ.get("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH")  # as gRPC
            context.load_verify_locations(roots) if roots else context.load_default_certs()
        else:
            context.load_verify_locations(ca)
    except ssl.SSLError as error:
        raise InvalidRequest(
            f"{ca} must be a PEM file of the CAs to trust: {error.reason or 'not readable'}"
        ) from error
    if certificate is not None and key is not None:
        try:
            # Without a password here, OpenSSL would ask for one at the terminal.
            context.load_cert_chain(certificate, key, password="")
        except ssl.SSLError as error:
            mixed_up = error.reason == "KEY_VALUES_MISMATCH"
            why = "it is another's" if mixed_up else error.reason or "one of them is not readable"
            raise InvalidRequest(
                f"{key} must be a PEM file of the private key of {certificate}, a PEM file too, "
                f"without a password: {why}"
            ) from error
    return context
