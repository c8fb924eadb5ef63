"""The page of all errors that a client can get."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from docs.generate.markdown import cell, head, table
from ntm_client.errors import BY_REASON, NtmClientError, SessionGone
from service import errors
from service.rpc.status import code

T = TypeVar("T")

INTRODUCTION = """
Every error has a gRPC code, a *reason* in `UPPER_SNAKE_CASE`, and a sentence with the offending
value and what to do. Programs should look at the reason. A unary call fails with the code, and
carries `google.rpc` details in the trailing metadata: the reason and its values in an `ErrorInfo`,
the request's id in a `RequestInfo`, and a delay in a `RetryInfo` where waiting helps. On a stream
the operation is answered with an `Error` message that has the same fields, and the stream goes on.

An error changes nothing, unless the table says otherwise. The Python client raises the class in the
last column.

## Reasons

"""

TO_DO = {
    "INTERNAL": "Report it with the request's id. The server's log has the traceback.",
    "INVALID_REQUEST": "Correct the request. The message names the field and the value.",
    "MODEL_UNKNOWN": "Ask `ListModels` which models are served.",
    "MODEL_VERSION_UNKNOWN": "Put the version's file into the model's folder `versions`.",
    "SESSION_UNKNOWN": "Open a new session. Without a store, check that the call reached the "
    "replica that opened it.",
    "SESSION_EXPIRED": "Open a new session; ask for a longer idle timeout.",
    "SESSION_DELETED": "Open a new session.",
    "SESSION_MOVED": "Send the call again, so that the balancer finds the new owner.",
    "SESSION_EXISTS": "Draw another session id.",
    "STEP_INDEX_MISMATCH": "Continue at the step in the metadata `expected`.",
    "CHECKPOINT_DAMAGED": "Use another copy of the checkpoint.",
    "CHECKPOINT_FOREIGN": "Restore it into a session of its own model, version and memory size.",
    "CHECKPOINT_TOO_NEW": "Upgrade the server.",
    "NO_MEMORY": "Ask only where the model's `default_locations` is not 0.",
    "SESSION_FAILED": "Open a new session, from a checkpoint if there is one.",
    "CAPACITY_EXCEEDED": "Wait for the delay in the details, then send it again. If a setting is "
    "the limit, the metadata `limit` names it; `memory` means that the server or its GPU has no "
    "more.",
    "CANCELLED": "Nothing: the client wanted it so.",
    "DRAINING": "Send it again to another replica.",
    "UNAUTHENTICATED": "Send a valid token in `authorization: Bearer TOKEN`, or a valid "
    "certificate.",
    "PERMISSION_DENIED": "Use a token that has the scope in the metadata `scope`.",
    "NOT_STORED": "Send the same request again, with the same first step.",
    "MODEL_INVALID": "Ask the operator of the server, whose log says what is wrong, to replace the "
    "model's file.",
    "FILE_INVALID": "Only seen at the server's start: correct the file that the message names.",
}
"""What the caller should do about each reason."""

BASES = (NtmClientError, SessionGone)
"""Errors of the client that are only caught, never raised."""

OF_THE_CLIENT = """
## Raised by the Python client alone

These have no reason from the server: the call did not reach it, was not answered, or the client
itself found what is wrong.

"""


def page() -> str:
    """Reason, code, meaning and remedy of each error, then the errors of the client alone."""
    rows = [_row(error) for error in errors.kinds()]
    own = [
        [f"`{error.__name__}`", f"`{error.code.name}`", cell(_summary(error))]
        for error in _tree(NtmClientError)
        if error not in (*BY_REASON.values(), *BASES)
    ]
    columns = ("reason, gRPC code", "when", "what to do", "Python")
    source = "service/errors.py, service/rpc/status.py and client/ntm_client/errors.py"
    return (
        head("Errors", source)
        + INTRODUCTION
        + table(columns, rows)
        + OF_THE_CLIENT
        + table(("class", "code", "when"), own)
    )


def _tree(top: type[T]) -> Iterator[type[T]]:
    """A class and those below it, each after its base."""
    yield top
    for below in top.__subclasses__():
        yield from _tree(below)


def _row(error: type[errors.NtmError]) -> list[str]:
    reason = error.reason
    when = "A fault of the server." if error is errors.NtmError else _summary(error)
    raised = BY_REASON.get(reason, NtmClientError).__name__
    # What an error's constructor takes does not matter to its code.
    code_name = code(error.__new__(error)).name
    return [f"`{reason}`<br>`{code_name}`", cell(when), cell(TO_DO[reason]), f"`{raised}`"]


def _summary(error: type) -> str:
    return (error.__doc__ or "").strip().split("\n\n")[0]
