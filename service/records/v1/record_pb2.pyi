from ntm.v1 import ntm_pb2 as _ntm_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class StoredSession(_message.Message):
    __slots__ = ("owner", "session", "checkpoint", "chunks", "initial")
    OWNER_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    INITIAL_FIELD_NUMBER: _ClassVar[int]
    owner: str
    session: _ntm_pb2.Session
    checkpoint: bytes
    chunks: _containers.RepeatedCompositeFieldContainer[StoredChunk]
    initial: _containers.RepeatedCompositeFieldContainer[_ntm_pb2.TensorValue]
    def __init__(self, owner: _Optional[str] = ..., session: _Optional[_Union[_ntm_pb2.Session, _Mapping]] = ..., checkpoint: _Optional[bytes] = ..., chunks: _Optional[_Iterable[_Union[StoredChunk, _Mapping]]] = ..., initial: _Optional[_Iterable[_Union[_ntm_pb2.TensorValue, _Mapping]]] = ...) -> None: ...

class StoredChunk(_message.Message):
    __slots__ = ("inputs_crc32", "traces", "reply")
    INPUTS_CRC32_FIELD_NUMBER: _ClassVar[int]
    TRACES_FIELD_NUMBER: _ClassVar[int]
    REPLY_FIELD_NUMBER: _ClassVar[int]
    inputs_crc32: int
    traces: _ntm_pb2.TraceSelection
    reply: _ntm_pb2.Reply
    def __init__(self, inputs_crc32: _Optional[int] = ..., traces: _Optional[_Union[_ntm_pb2.TraceSelection, _Mapping]] = ..., reply: _Optional[_Union[_ntm_pb2.Reply, _Mapping]] = ...) -> None: ...
