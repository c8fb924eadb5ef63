"""What gRPC reports becomes the error that says what to do about it."""

from __future__ import annotations

import grpc
import pytest

from ntm_client import NtmClientError, Unavailable
from ntm_client.failures import call_error


class Failed(grpc.RpcError):
    """A call that ended so, without a reason of the server's."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        self._code, self._details = code, details

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._details

    def trailing_metadata(self) -> tuple[()]:
        return ()


@pytest.mark.parametrize(
    ("details", "passes"),
    [("CANCELLED", True), ("Channel closed!", False), ("Locally cancelled by application!", False)],
)
def test_only_what_the_server_cancelled_may_be_tried_again(details: str, passes: bool) -> None:
    """A call that the server cancelled may be repeated; one that the client cancelled may not."""
    error = call_error(Failed(grpc.StatusCode.CANCELLED, details), "replica:1")

    assert error.code is grpc.StatusCode.CANCELLED
    assert isinstance(error, Unavailable) is passes
    assert isinstance(error, NtmClientError)
