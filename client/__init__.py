"""
What a user imports and runs: sessions, the command line, pictures of head traces.

    from client import Client

    with Client("localhost:50051") as client:
        with client.create_session("copy-ntm-lstm") as session:
            result = session.step(inputs, traces=["write_weighting"])

`AsyncClient` offers the same to tasks, and a `Stream` that carries many sessions at once.
"""

from client.aio import AsyncClient
from client.async_session import AsyncSession
from client.blocking import Client, Session
from client.connection import Token, tls
from client.errors import (
    CapacityExceeded,
    Draining,
    InvalidRequest,
    ModelUnknown,
    NoMemory,
    NtmClientError,
    PermissionDenied,
    SessionDeleted,
    SessionExpired,
    SessionFailed,
    SessionGone,
    SessionUnknown,
    StepIndexMismatch,
    StreamBroken,
    TimedOut,
    TokenNotSent,
    Unauthenticated,
    Unavailable,
)
from client.records import Memory, Model, SessionInfo, StateTensor, StepResult, TraceTensor
from client.stream import Stream

__all__ = [
    "AsyncClient",
    "AsyncSession",
    "CapacityExceeded",
    "Client",
    "Draining",
    "InvalidRequest",
    "Memory",
    "Model",
    "ModelUnknown",
    "NoMemory",
    "NtmClientError",
    "PermissionDenied",
    "Session",
    "SessionDeleted",
    "SessionExpired",
    "SessionFailed",
    "SessionGone",
    "SessionInfo",
    "SessionUnknown",
    "StateTensor",
    "StepIndexMismatch",
    "StepResult",
    "Stream",
    "StreamBroken",
    "TimedOut",
    "Token",
    "TokenNotSent",
    "TraceTensor",
    "Unauthenticated",
    "Unavailable",
    "tls",
]
