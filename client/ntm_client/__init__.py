"""
The client of an NTM server: models, sessions and their steps.

    from ntm_client import Client

    with Client("localhost:50051") as client:
        with client.create_session("copy-ntm-lstm") as session:
            result = session.step(inputs, traces=["write_weighting"])

`AsyncClient` offers the same to asyncio, and a `Stream` that carries many sessions at once. A
session goes on after the loss of a server if the server has a store; `Resume` has the settings for
that.
"""

from ntm import versions

versions.check()  # before the stubs fail in their own way

from ntm.tensors import StepTensor
from ntm_client.aio import AsyncClient
from ntm_client.async_session import AsyncSession
from ntm_client.blocking import Client, Session
from ntm_client.connection import Token
from ntm_client.encryption import Tls, tls
from ntm_client.errors import (
    CapacityExceeded,
    CheckpointDamaged,
    CheckpointForeign,
    CheckpointTooNew,
    ClientClosed,
    Diverged,
    Draining,
    InvalidArgument,
    InvalidRequest,
    ModelUnknown,
    ModelVersionUnknown,
    NoMemory,
    NotResumable,
    NotStored,
    NtmClientError,
    PermissionDenied,
    SessionDeleted,
    SessionExists,
    SessionExpired,
    SessionFailed,
    SessionGone,
    SessionMoved,
    SessionUnknown,
    StepIndexMismatch,
    StreamBroken,
    StreamClosed,
    TimedOut,
    TlsFailed,
    TokenNotSent,
    Unauthenticated,
    Unavailable,
    Unreachable,
)
from ntm_client.resume import Resume
from ntm_client.stream import Stream
from ntm_client.values import (
    Durability,
    Limits,
    Memory,
    Model,
    ModelVersion,
    SessionInfo,
    StateTensor,
    StepResult,
    TraceTensor,
)

__all__ = [
    "AsyncClient",
    "AsyncSession",
    "CapacityExceeded",
    "CheckpointDamaged",
    "CheckpointForeign",
    "CheckpointTooNew",
    "Client",
    "ClientClosed",
    "Diverged",
    "Draining",
    "Durability",
    "InvalidArgument",
    "InvalidRequest",
    "Limits",
    "Memory",
    "Model",
    "ModelUnknown",
    "ModelVersion",
    "ModelVersionUnknown",
    "NoMemory",
    "NotResumable",
    "NotStored",
    "NtmClientError",
    "PermissionDenied",
    "Resume",
    "Session",
    "SessionDeleted",
    "SessionExists",
    "SessionExpired",
    "SessionFailed",
    "SessionGone",
    "SessionInfo",
    "SessionMoved",
    "SessionUnknown",
    "StateTensor",
    "StepIndexMismatch",
    "StepResult",
    "StepTensor",
    "Stream",
    "StreamBroken",
    "StreamClosed",
    "TimedOut",
    "Tls",
    "TlsFailed",
    "Token",
    "TokenNotSent",
    "TraceTensor",
    "Unauthenticated",
    "Unavailable",
    "Unreachable",
    "tls",
]
