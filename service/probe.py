"""
The command `python -m service.probe [ADDRESS]`, for health checks: exits 0 if a server is SERVING.

It reads the server's variables: NTM_HOST and NTM_PORT, and for TLS NTM_TLS_CERTIFICATE and
NTM_TLS_KEY. With TLS it trusts this certificate alone, and shows the same one if the server asks
for a certificate. It uses no proxy.
"""

from __future__ import annotations

import os
import sys

from service.errors import FileInvalid, missing_package

try:
    from ntm import addresses, versions
    from ntm.addresses import Address, AddressInvalid

    versions.check()
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    from service.auth import tls
except ImportError as _error:
    # One without a name is of `versions`, and says itself what to install.
    print(f"cannot ask: {missing_package(_error) if _error.name else _error}", file=sys.stderr)
    sys.exit(1)

_TIMEOUT_SECONDS = 3.0


def main() -> int:
    """Ask the server at ADDRESS, else the one of NTM_HOST and NTM_PORT; return the exit status."""
    try:
        address = addresses.parse(sys.argv[1]) if len(sys.argv) > 1 else _own()
        with _channel(address) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=_TIMEOUT_SECONDS)
    except (AddressInvalid, FileInvalid) as error:
        print(error, file=sys.stderr)
        return 1
    except grpc.RpcError as error:
        print(f"{address}: {error.code().name}: {error.details()}{_advice(error)}", file=sys.stderr)
        return 1
    print(f"{address}: {health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)}")
    return 0 if answer.status == health_pb2.HealthCheckResponse.SERVING else 1


def _advice(error: grpc.RpcError) -> str:
    """What to set if the server may want TLS, whose handshake it waits for."""
    is_silent = error.code() == grpc.StatusCode.UNAVAILABLE and "refused" not in str(
        error.details()
    )
    if not is_silent or os.environ.get("NTM_TLS_CERTIFICATE"):
        return ""
    return "; if the server has TLS, set NTM_TLS_CERTIFICATE and NTM_TLS_KEY as the server has them"


def _own() -> Address:
    """
    The address of the server with the same variables, as its own machine reaches it.

    Raises AddressInvalid, also if the port is 0 and so any.
    """
    host = os.environ.get("NTM_HOST", "127.0.0.1")
    port = os.environ.get("NTM_PORT", str(addresses.DEFAULT_PORT))
    try:
        own = addresses.listening(host, 0).reached()
        return own if own.socket_path else own.at(addresses.port(port, f"{host}:{port}"))
    except AddressInvalid as error:
        raise AddressInvalid(error.text, error.why, "NTM_HOST and NTM_PORT: ") from error


def _channel(address: Address) -> grpc.Channel:
    certificate = os.environ.get("NTM_TLS_CERTIFICATE")
    if not certificate:
        return grpc.insecure_channel(str(address), tls.NO_PROXY)
    key = os.environ.get("NTM_TLS_KEY")
    if not key:
        raise FileInvalid(f"NTM_TLS_CERTIFICATE is {certificate!r}; set NTM_TLS_KEY too")
    return tls.own_channel(str(address), tls.watched(certificate, key, "").value())


if __name__ == "__main__":
    sys.exit(main())
