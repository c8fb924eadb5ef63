"""
Every error that a client raises.

    NtmClientError
    ├── InvalidRequest          what was asked cannot be done as written
    │   ├── InvalidArgument     an argument is wrong; nothing was sent
    │   ├── ClientClosed        the client was closed before; make another
    │   ├── ModelUnknown
    │   ├── ModelVersionUnknown the server has not the version of the model that is needed
    │   ├── SessionExists       the id of a new session is taken
    │   ├── StepIndexMismatch   another client, or a lost call, made steps of this session
    │   ├── NoMemory
    │   ├── CheckpointDamaged   its bytes were cut short or changed
    │   ├── CheckpointForeign   it is of another model, version or memory size
    │   └── CheckpointTooNew    only a later server reads it
    ├── SessionGone             the session is closed; open another
    │   ├── SessionUnknown      never opened there, or closed too long ago to remember
    │   ├── SessionExpired
    │   ├── SessionDeleted
    │   └── SessionFailed       its state could no longer be trusted
    ├── SessionMoved            another replica has taken the session over
    ├── NotResumable            the session lost steps that cannot be made again from here
    ├── Diverged                steps made again gave other outputs than the first time
    ├── Unauthenticated         a valid token or certificate is required
    ├── PermissionDenied        the token lacks a scope
    ├── TokenNotSent            it would have travelled unencrypted, or is no token
    ├── CapacityExceeded        try again after `retry_delay_seconds`
    ├── TimedOut                no answer in time
    └── Unavailable             no server answers there
        ├── Unreachable         not even a connection; nothing was sent
        │   └── TlsFailed       client and server do not agree on encryption or certificates
        ├── Draining            the server is stopping
        ├── NotStored           the store of sessions does not answer
        └── StreamBroken        the stream ended with this operation unanswered
            └── StreamClosed    it was left, or not entered
"""

from __future__ import annotations

from collections.abc import Mapping

from grpc import StatusCode


class NtmClientError(Exception):
    """Base of all errors below: a sentence for a person, a code and a reason for a program."""

    code: StatusCode = StatusCode.UNKNOWN
    reason: str = ""
    """
    The reason in the API, such as SESSION_EXPIRED, or one that the class names; else empty.
    """

    def __init__(
        self,
        message: str,
        *,
        code: StatusCode | None = None,
        reason: str | None = None,
        metadata: Mapping[str, str] | None = None,
        retry_delay_seconds: float | None = None,
        request_id: str = "",
    ) -> None:
        """`metadata` has the values that a program needs to act, such as the expected index."""
        super().__init__(message)
        self.message = message
        self.code = self.code if code is None else code
        self.reason = self.reason if reason is None else reason
        self.metadata = dict(metadata or {})
        self.retry_delay_seconds = retry_delay_seconds
        self.request_id = request_id
        """The id of the failed call in the server's log, or of the stream on which it failed."""


class InvalidRequest(NtmClientError):
    """The request cannot be done as it is written; nothing was changed."""

    code = StatusCode.INVALID_ARGUMENT
    reason = "INVALID_REQUEST"


class InvalidArgument(InvalidRequest, ValueError):
    """An argument has a type or a value that it cannot have; nothing was sent."""


class ClientClosed(InvalidRequest):
    """The client was closed; make another to go on."""

    code = StatusCode.CANCELLED


class ModelUnknown(InvalidRequest):
    """The server has no model of that name."""


class ModelVersionUnknown(InvalidRequest):
    """The server does not have this version of the model; another replica may have it."""


class SessionExists(InvalidRequest):
    """
    The id of a new session is taken, by another caller or by a session that differs from the
    request.
    """


class StepIndexMismatch(InvalidRequest):
    """
    The session is at another step than this client expected; no step was made.

    To go on from the server's step, call `describe`, which sets `next_step` to it.
    """

    @property
    def expected(self) -> int:
        """Index of the step that the server would make next."""
        return int(self.metadata["expected"])


class NoMemory(InvalidRequest):
    """The model has no memory to read."""


class CheckpointDamaged(InvalidRequest):
    """The bytes of a checkpoint were cut short or changed, or are not a checkpoint."""

    reason = "CHECKPOINT_DAMAGED"


class CheckpointForeign(InvalidRequest):
    """
    A checkpoint does not fit the session: it is of another model, another version or another number
    of locations.
    """


class CheckpointTooNew(InvalidRequest):
    """A checkpoint has a format that only a later server can read."""


class SessionGone(NtmClientError):
    """The session is closed and its state is lost."""


class SessionUnknown(SessionGone):
    """The server remembers no session with this id."""


class SessionExpired(SessionGone):
    """The session expired: it made no step for its idle timeout."""


class SessionDeleted(SessionGone):
    """A client deleted the session."""


class SessionFailed(SessionGone):
    """
    A run of the network failed or gave values that are not finite; the server closed the session.
    """


class SessionMoved(NtmClientError):
    """Another replica has taken the session over; it goes on there."""


class NotResumable(NtmClientError):
    """
    The session is at another step than this client, and the client cannot make the steps between.

    To continue from the server's step, call `describe`, which sets `next_step` to it.
    """

    code = StatusCode.DATA_LOSS
    reason = "NOT_RESUMABLE"

    @property
    def next_step(self) -> int:
        """Index of the step that this client would make next."""
        return int(self.metadata["next_step"])

    @property
    def expected(self) -> int:
        """Index of the step that the server would make next."""
        return int(self.metadata["expected"])


class Diverged(NtmClientError):
    """
    Steps made again after a loss gave other outputs than the first time.

    Either the replica computes differently, or another client stepped the session. After `reset` or
    `restore` the session can be used again.
    """

    code = StatusCode.DATA_LOSS
    reason = "DIVERGED"

    @property
    def step(self) -> int:
        """Index of the first step with another output."""
        return int(self.metadata["step"])


class Unauthenticated(NtmClientError):
    """The server requires a valid token or certificate, and the call had none."""


class PermissionDenied(NtmClientError):
    """The token lacks the scope that the call needs, which `metadata` has under `scope`."""


class TokenNotSent(NtmClientError):
    """The token was not sent: the connection is not encrypted, or the token is not valid."""

    code = StatusCode.UNAUTHENTICATED


class CapacityExceeded(NtmClientError):
    """A limit of the server is reached; nothing was changed."""


class TimedOut(NtmClientError):
    """No answer came within the timeout. Steps may have been made; `describe` shows how many."""

    code = StatusCode.DEADLINE_EXCEEDED


class Unavailable(NtmClientError):
    """No server answers."""

    code = StatusCode.UNAVAILABLE


class Unreachable(Unavailable):
    """
    No connection could be made; nothing was sent.

    The client finds out why, if it can. The `reason` is then HOST_UNKNOWN, CONNECTION_REFUSED,
    NO_ANSWER, NOT_GRPC (something else answers there) or PROXY_FAILED.
    """


class TlsFailed(Unreachable):
    """
    Client and server do not agree on encryption or on a certificate; nothing was sent.

    The `reason` is TLS_REQUIRED (only the server encrypts), TLS_NOT_SPOKEN (only the client does),
    CERTIFICATE_NAME, CERTIFICATE_UNTRUSTED or CERTIFICATE_EXPIRED (the server's certificate), or
    CLIENT_CERTIFICATE_MISSING or CLIENT_CERTIFICATE_REFUSED.
    """


class NotStored(Unavailable):
    """The store did not answer. The steps were made but may not be durable; send them again."""


class Draining(Unavailable):
    """The server is stopping and takes no new work."""


class StreamBroken(Unavailable):
    """The stream ended before the operation was answered. Steps may have been made."""


class StreamClosed(StreamBroken):
    """The stream's `async with` block was left, or was not entered yet."""


BY_REASON: Mapping[str, type[NtmClientError]] = {
    "INVALID_REQUEST": InvalidRequest,
    "MODEL_UNKNOWN": ModelUnknown,
    "MODEL_VERSION_UNKNOWN": ModelVersionUnknown,
    "SESSION_EXISTS": SessionExists,
    "STEP_INDEX_MISMATCH": StepIndexMismatch,
    "NO_MEMORY": NoMemory,
    "CHECKPOINT_DAMAGED": CheckpointDamaged,
    "CHECKPOINT_FOREIGN": CheckpointForeign,
    "CHECKPOINT_TOO_NEW": CheckpointTooNew,
    "SESSION_UNKNOWN": SessionUnknown,
    "SESSION_EXPIRED": SessionExpired,
    "SESSION_DELETED": SessionDeleted,
    "SESSION_FAILED": SessionFailed,
    "SESSION_MOVED": SessionMoved,
    "NOT_STORED": NotStored,
    "CAPACITY_EXCEEDED": CapacityExceeded,
    "DRAINING": Draining,
    "UNAUTHENTICATED": Unauthenticated,
    "PERMISSION_DENIED": PermissionDenied,
}
"""The class for each reason that a server gives; any other reason gives an `NtmClientError`."""

BY_CODE: Mapping[StatusCode, type[NtmClientError]] = {
    StatusCode.DEADLINE_EXCEEDED: TimedOut,
    StatusCode.UNAVAILABLE: Unavailable,
}
"""The class for a code that gRPC itself reports, without a reason."""
