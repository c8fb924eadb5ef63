"""How errors travel: every error has a code, and the proto's comments know them all."""

from __future__ import annotations

import logging
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from service import errors
from service.rpc import status

PROTO = Path(__file__).parents[3] / "proto" / "ntm" / "v1" / "ntm.proto"


UNTOLD = (errors.NtmError, errors.FileInvalid)
"""The base, and those that the server alone gets."""


def told() -> list[type[errors.NtmError]]:
    """The errors that a client can get."""
    return [kind for kind in errors.kinds() if kind not in UNTOLD]


@pytest.mark.parametrize("kind", told())
def test_every_error_has_a_code_and_stands_in_the_proto(kind: type[errors.NtmError]) -> None:
    """The table of codes is complete, and the proto names the code and the reason."""
    text = PROTO.read_text()
    assert status.CODES[kind].name in text
    assert kind.reason in text


def test_reasons_are_distinct() -> None:
    """A program can tell the errors apart."""
    reasons = [kind.reason for kind in told()]
    assert len(reasons) == len(set(reasons))


def test_details_are_the_standard_ones() -> None:
    """A google.rpc.Status with ErrorInfo and RetryInfo, as any gRPC client can read it."""
    error = errors.CapacityExceeded("full", retry_delay_seconds=1.5, limit="max_sessions")
    read = status_pb2.Status.FromString(status.details(error))
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    assert read.details[0].Unpack(info)
    assert read.details[1].Unpack(retry)
    assert (read.code, read.message) == (grpc.StatusCode.RESOURCE_EXHAUSTED.value[0], "full")
    assert (info.reason, info.domain) == ("CAPACITY_EXCEEDED", "ntm.v1")
    assert dict(info.metadata) == {"limit": "max_sessions"}
    assert retry.retry_delay.ToTimedelta().total_seconds() == 1.5


def test_a_streams_error_says_the_same() -> None:
    """Code, reason, sentence, metadata and delay."""
    error = errors.StepIndexMismatch("gap", expected=3, actual=5)
    message = status.message(error)
    assert message.code == grpc.StatusCode.ABORTED.value[0]
    assert (message.reason, message.message) == ("STEP_INDEX_MISMATCH", "gap")
    assert dict(message.metadata) == {"expected": "3", "actual": "5"}
    assert not message.HasField("retry_delay")


def test_an_unexpected_error_tells_a_client_nothing_of_itself(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its text may hold anything; the log gets it instead."""
    with caplog.at_level(logging.ERROR):
        known = status.known(ValueError("a secret"))
    assert status.code(known) is grpc.StatusCode.INTERNAL
    assert "secret" not in known.message
    assert "a secret" in caplog.text
