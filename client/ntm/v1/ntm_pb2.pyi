import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ElementType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ELEMENT_TYPE_UNSPECIFIED: _ClassVar[ElementType]
    ELEMENT_TYPE_FLOAT32: _ClassVar[ElementType]
    ELEMENT_TYPE_FLOAT16: _ClassVar[ElementType]
    ELEMENT_TYPE_INT64: _ClassVar[ElementType]
    ELEMENT_TYPE_INT32: _ClassVar[ElementType]
    ELEMENT_TYPE_BOOL: _ClassVar[ElementType]
ELEMENT_TYPE_UNSPECIFIED: ElementType
ELEMENT_TYPE_FLOAT32: ElementType
ELEMENT_TYPE_FLOAT16: ElementType
ELEMENT_TYPE_INT64: ElementType
ELEMENT_TYPE_INT32: ElementType
ELEMENT_TYPE_BOOL: ElementType

class Model(_message.Message):
    __slots__ = ("name", "content_hash", "task", "architecture", "input_width", "output_width", "state", "traces", "read_heads", "write_heads", "default_locations", "fixed_locations", "provider", "versions", "inputs", "outputs", "batched")
    NAME_FIELD_NUMBER: _ClassVar[int]
    CONTENT_HASH_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    ARCHITECTURE_FIELD_NUMBER: _ClassVar[int]
    INPUT_WIDTH_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_WIDTH_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    TRACES_FIELD_NUMBER: _ClassVar[int]
    READ_HEADS_FIELD_NUMBER: _ClassVar[int]
    WRITE_HEADS_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_LOCATIONS_FIELD_NUMBER: _ClassVar[int]
    FIXED_LOCATIONS_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    BATCHED_FIELD_NUMBER: _ClassVar[int]
    name: str
    content_hash: str
    task: str
    architecture: str
    input_width: int
    output_width: int
    state: _containers.RepeatedCompositeFieldContainer[StateTensor]
    traces: _containers.RepeatedCompositeFieldContainer[TraceTensor]
    read_heads: int
    write_heads: int
    default_locations: int
    fixed_locations: bool
    provider: str
    versions: _containers.RepeatedCompositeFieldContainer[ModelVersion]
    inputs: _containers.RepeatedCompositeFieldContainer[StepTensor]
    outputs: _containers.RepeatedCompositeFieldContainer[StepTensor]
    batched: bool
    def __init__(self, name: _Optional[str] = ..., content_hash: _Optional[str] = ..., task: _Optional[str] = ..., architecture: _Optional[str] = ..., input_width: _Optional[int] = ..., output_width: _Optional[int] = ..., state: _Optional[_Iterable[_Union[StateTensor, _Mapping]]] = ..., traces: _Optional[_Iterable[_Union[TraceTensor, _Mapping]]] = ..., read_heads: _Optional[int] = ..., write_heads: _Optional[int] = ..., default_locations: _Optional[int] = ..., fixed_locations: _Optional[bool] = ..., provider: _Optional[str] = ..., versions: _Optional[_Iterable[_Union[ModelVersion, _Mapping]]] = ..., inputs: _Optional[_Iterable[_Union[StepTensor, _Mapping]]] = ..., outputs: _Optional[_Iterable[_Union[StepTensor, _Mapping]]] = ..., batched: _Optional[bool] = ...) -> None: ...

class StepTensor(_message.Message):
    __slots__ = ("name", "type", "shape")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    name: str
    type: ElementType
    shape: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, name: _Optional[str] = ..., type: _Optional[_Union[ElementType, str]] = ..., shape: _Optional[_Iterable[int]] = ...) -> None: ...

class ModelVersion(_message.Message):
    __slots__ = ("content_hash", "current", "loaded")
    CONTENT_HASH_FIELD_NUMBER: _ClassVar[int]
    CURRENT_FIELD_NUMBER: _ClassVar[int]
    LOADED_FIELD_NUMBER: _ClassVar[int]
    content_hash: str
    current: bool
    loaded: bool
    def __init__(self, content_hash: _Optional[str] = ..., current: _Optional[bool] = ..., loaded: _Optional[bool] = ...) -> None: ...

class StateTensor(_message.Message):
    __slots__ = ("name", "shape", "type", "given", "constant")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    GIVEN_FIELD_NUMBER: _ClassVar[int]
    CONSTANT_FIELD_NUMBER: _ClassVar[int]
    name: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    type: ElementType
    given: bool
    constant: bool
    def __init__(self, name: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., type: _Optional[_Union[ElementType, str]] = ..., given: _Optional[bool] = ..., constant: _Optional[bool] = ...) -> None: ...

class TensorValue(_message.Message):
    __slots__ = ("name", "data")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    name: str
    data: bytes
    def __init__(self, name: _Optional[str] = ..., data: _Optional[bytes] = ...) -> None: ...

class TraceTensor(_message.Message):
    __slots__ = ("name", "heads", "width")
    NAME_FIELD_NUMBER: _ClassVar[int]
    HEADS_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    name: str
    heads: int
    width: int
    def __init__(self, name: _Optional[str] = ..., heads: _Optional[int] = ..., width: _Optional[int] = ...) -> None: ...

class Session(_message.Message):
    __slots__ = ("id", "model", "content_hash", "locations", "idle_timeout", "next_step", "state_bytes", "create_time", "expire_time", "durability", "durable_step", "epoch", "limits", "expires_in", "replica")
    ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    CONTENT_HASH_FIELD_NUMBER: _ClassVar[int]
    LOCATIONS_FIELD_NUMBER: _ClassVar[int]
    IDLE_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    NEXT_STEP_FIELD_NUMBER: _ClassVar[int]
    STATE_BYTES_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    DURABILITY_FIELD_NUMBER: _ClassVar[int]
    DURABLE_STEP_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_IN_FIELD_NUMBER: _ClassVar[int]
    REPLICA_FIELD_NUMBER: _ClassVar[int]
    id: str
    model: str
    content_hash: str
    locations: int
    idle_timeout: _duration_pb2.Duration
    next_step: int
    state_bytes: int
    create_time: _timestamp_pb2.Timestamp
    expire_time: _timestamp_pb2.Timestamp
    durability: Durability
    durable_step: int
    epoch: int
    limits: Limits
    expires_in: _duration_pb2.Duration
    replica: str
    def __init__(self, id: _Optional[str] = ..., model: _Optional[str] = ..., content_hash: _Optional[str] = ..., locations: _Optional[int] = ..., idle_timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., next_step: _Optional[int] = ..., state_bytes: _Optional[int] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., durability: _Optional[_Union[Durability, _Mapping]] = ..., durable_step: _Optional[int] = ..., epoch: _Optional[int] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ..., expires_in: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., replica: _Optional[str] = ...) -> None: ...

class Limits(_message.Message):
    __slots__ = ("max_chunk_steps", "max_waiting_steps", "max_message_bytes", "max_reply_bytes", "max_replay_bytes")
    MAX_CHUNK_STEPS_FIELD_NUMBER: _ClassVar[int]
    MAX_WAITING_STEPS_FIELD_NUMBER: _ClassVar[int]
    MAX_MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_REPLY_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_REPLAY_BYTES_FIELD_NUMBER: _ClassVar[int]
    max_chunk_steps: int
    max_waiting_steps: int
    max_message_bytes: int
    max_reply_bytes: int
    max_replay_bytes: int
    def __init__(self, max_chunk_steps: _Optional[int] = ..., max_waiting_steps: _Optional[int] = ..., max_message_bytes: _Optional[int] = ..., max_reply_bytes: _Optional[int] = ..., max_replay_bytes: _Optional[int] = ...) -> None: ...

class Durability(_message.Message):
    __slots__ = ("policy", "every_steps")
    class Policy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        POLICY_UNSPECIFIED: _ClassVar[Durability.Policy]
        POLICY_NONE: _ClassVar[Durability.Policy]
        POLICY_ASYNCHRONOUS: _ClassVar[Durability.Policy]
        POLICY_SYNCHRONOUS: _ClassVar[Durability.Policy]
    POLICY_UNSPECIFIED: Durability.Policy
    POLICY_NONE: Durability.Policy
    POLICY_ASYNCHRONOUS: Durability.Policy
    POLICY_SYNCHRONOUS: Durability.Policy
    POLICY_FIELD_NUMBER: _ClassVar[int]
    EVERY_STEPS_FIELD_NUMBER: _ClassVar[int]
    policy: Durability.Policy
    every_steps: int
    def __init__(self, policy: _Optional[_Union[Durability.Policy, str]] = ..., every_steps: _Optional[int] = ...) -> None: ...

class Chunk(_message.Message):
    __slots__ = ("session_id", "first_step", "inputs", "traces", "epoch")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    FIRST_STEP_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    TRACES_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    first_step: int
    inputs: bytes
    traces: TraceSelection
    epoch: int
    def __init__(self, session_id: _Optional[str] = ..., first_step: _Optional[int] = ..., inputs: _Optional[bytes] = ..., traces: _Optional[_Union[TraceSelection, _Mapping]] = ..., epoch: _Optional[int] = ...) -> None: ...

class TraceSelection(_message.Message):
    __slots__ = ("names", "top_k")
    NAMES_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    names: _containers.RepeatedScalarFieldContainer[str]
    top_k: int
    def __init__(self, names: _Optional[_Iterable[str]] = ..., top_k: _Optional[int] = ...) -> None: ...

class Reply(_message.Message):
    __slots__ = ("session_id", "first_step", "next_step", "outputs", "traces", "durable_step", "epoch")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    FIRST_STEP_FIELD_NUMBER: _ClassVar[int]
    NEXT_STEP_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    TRACES_FIELD_NUMBER: _ClassVar[int]
    DURABLE_STEP_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    first_step: int
    next_step: int
    outputs: bytes
    traces: _containers.RepeatedCompositeFieldContainer[Trace]
    durable_step: int
    epoch: int
    def __init__(self, session_id: _Optional[str] = ..., first_step: _Optional[int] = ..., next_step: _Optional[int] = ..., outputs: _Optional[bytes] = ..., traces: _Optional[_Iterable[_Union[Trace, _Mapping]]] = ..., durable_step: _Optional[int] = ..., epoch: _Optional[int] = ...) -> None: ...

class Trace(_message.Message):
    __slots__ = ("name", "heads", "width", "values", "locations")
    NAME_FIELD_NUMBER: _ClassVar[int]
    HEADS_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    LOCATIONS_FIELD_NUMBER: _ClassVar[int]
    name: str
    heads: int
    width: int
    values: bytes
    locations: bytes
    def __init__(self, name: _Optional[str] = ..., heads: _Optional[int] = ..., width: _Optional[int] = ..., values: _Optional[bytes] = ..., locations: _Optional[bytes] = ...) -> None: ...

class Error(_message.Message):
    __slots__ = ("code", "reason", "message", "metadata", "retry_delay")
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    CODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    RETRY_DELAY_FIELD_NUMBER: _ClassVar[int]
    code: int
    reason: str
    message: str
    metadata: _containers.ScalarMap[str, str]
    retry_delay: _duration_pb2.Duration
    def __init__(self, code: _Optional[int] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ..., metadata: _Optional[_Mapping[str, str]] = ..., retry_delay: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[Model]
    def __init__(self, models: _Optional[_Iterable[_Union[Model, _Mapping]]] = ...) -> None: ...

class GetModelRequest(_message.Message):
    __slots__ = ("name", "content_hash")
    NAME_FIELD_NUMBER: _ClassVar[int]
    CONTENT_HASH_FIELD_NUMBER: _ClassVar[int]
    name: str
    content_hash: str
    def __init__(self, name: _Optional[str] = ..., content_hash: _Optional[str] = ...) -> None: ...

class GetModelResponse(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: Model
    def __init__(self, model: _Optional[_Union[Model, _Mapping]] = ...) -> None: ...

class CreateSessionRequest(_message.Message):
    __slots__ = ("model", "locations", "idle_timeout", "checkpoint", "durability", "content_hash", "session_id", "initial")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    LOCATIONS_FIELD_NUMBER: _ClassVar[int]
    IDLE_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    DURABILITY_FIELD_NUMBER: _ClassVar[int]
    CONTENT_HASH_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    INITIAL_FIELD_NUMBER: _ClassVar[int]
    model: str
    locations: int
    idle_timeout: _duration_pb2.Duration
    checkpoint: bytes
    durability: Durability
    content_hash: str
    session_id: str
    initial: _containers.RepeatedCompositeFieldContainer[TensorValue]
    def __init__(self, model: _Optional[str] = ..., locations: _Optional[int] = ..., idle_timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., checkpoint: _Optional[bytes] = ..., durability: _Optional[_Union[Durability, _Mapping]] = ..., content_hash: _Optional[str] = ..., session_id: _Optional[str] = ..., initial: _Optional[_Iterable[_Union[TensorValue, _Mapping]]] = ...) -> None: ...

class CreateSessionResponse(_message.Message):
    __slots__ = ("session",)
    SESSION_FIELD_NUMBER: _ClassVar[int]
    session: Session
    def __init__(self, session: _Optional[_Union[Session, _Mapping]] = ...) -> None: ...

class GetSessionRequest(_message.Message):
    __slots__ = ("session_id", "epoch")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    epoch: int
    def __init__(self, session_id: _Optional[str] = ..., epoch: _Optional[int] = ...) -> None: ...

class GetSessionResponse(_message.Message):
    __slots__ = ("session",)
    SESSION_FIELD_NUMBER: _ClassVar[int]
    session: Session
    def __init__(self, session: _Optional[_Union[Session, _Mapping]] = ...) -> None: ...

class ListSessionsRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListSessionsResponse(_message.Message):
    __slots__ = ("sessions", "next_page_token")
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    sessions: _containers.RepeatedCompositeFieldContainer[Session]
    next_page_token: str
    def __init__(self, sessions: _Optional[_Iterable[_Union[Session, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class ResetSessionRequest(_message.Message):
    __slots__ = ("session_id", "epoch")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    epoch: int
    def __init__(self, session_id: _Optional[str] = ..., epoch: _Optional[int] = ...) -> None: ...

class ResetSessionResponse(_message.Message):
    __slots__ = ("session",)
    SESSION_FIELD_NUMBER: _ClassVar[int]
    session: Session
    def __init__(self, session: _Optional[_Union[Session, _Mapping]] = ...) -> None: ...

class CheckpointSessionRequest(_message.Message):
    __slots__ = ("session_id", "epoch")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    epoch: int
    def __init__(self, session_id: _Optional[str] = ..., epoch: _Optional[int] = ...) -> None: ...

class CheckpointSessionResponse(_message.Message):
    __slots__ = ("session", "checkpoint")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    session: Session
    checkpoint: bytes
    def __init__(self, session: _Optional[_Union[Session, _Mapping]] = ..., checkpoint: _Optional[bytes] = ...) -> None: ...

class RestoreSessionRequest(_message.Message):
    __slots__ = ("session_id", "checkpoint", "epoch")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    checkpoint: bytes
    epoch: int
    def __init__(self, session_id: _Optional[str] = ..., checkpoint: _Optional[bytes] = ..., epoch: _Optional[int] = ...) -> None: ...

class RestoreSessionResponse(_message.Message):
    __slots__ = ("session",)
    SESSION_FIELD_NUMBER: _ClassVar[int]
    session: Session
    def __init__(self, session: _Optional[_Union[Session, _Mapping]] = ...) -> None: ...

class ForkSessionRequest(_message.Message):
    __slots__ = ("session_id", "idle_timeout", "epoch", "fork_id")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    IDLE_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    FORK_ID_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    idle_timeout: _duration_pb2.Duration
    epoch: int
    fork_id: str
    def __init__(self, session_id: _Optional[str] = ..., idle_timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., epoch: _Optional[int] = ..., fork_id: _Optional[str] = ...) -> None: ...

class ForkSessionResponse(_message.Message):
    __slots__ = ("session",)
    SESSION_FIELD_NUMBER: _ClassVar[int]
    session: Session
    def __init__(self, session: _Optional[_Union[Session, _Mapping]] = ...) -> None: ...

class DeleteSessionRequest(_message.Message):
    __slots__ = ("session_id", "epoch")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    epoch: int
    def __init__(self, session_id: _Optional[str] = ..., epoch: _Optional[int] = ...) -> None: ...

class DeleteSessionResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ReadMemoryRequest(_message.Message):
    __slots__ = ("session_id", "epoch")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    epoch: int
    def __init__(self, session_id: _Optional[str] = ..., epoch: _Optional[int] = ...) -> None: ...

class ReadMemoryResponse(_message.Message):
    __slots__ = ("session_id", "next_step", "locations", "width", "memory", "read_weightings", "write_weightings", "epoch")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    NEXT_STEP_FIELD_NUMBER: _ClassVar[int]
    LOCATIONS_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    READ_WEIGHTINGS_FIELD_NUMBER: _ClassVar[int]
    WRITE_WEIGHTINGS_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    next_step: int
    locations: int
    width: int
    memory: bytes
    read_weightings: bytes
    write_weightings: bytes
    epoch: int
    def __init__(self, session_id: _Optional[str] = ..., next_step: _Optional[int] = ..., locations: _Optional[int] = ..., width: _Optional[int] = ..., memory: _Optional[bytes] = ..., read_weightings: _Optional[bytes] = ..., write_weightings: _Optional[bytes] = ..., epoch: _Optional[int] = ...) -> None: ...

class StepRequest(_message.Message):
    __slots__ = ("chunk",)
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    chunk: Chunk
    def __init__(self, chunk: _Optional[_Union[Chunk, _Mapping]] = ...) -> None: ...

class StepResponse(_message.Message):
    __slots__ = ("reply", "replica")
    REPLY_FIELD_NUMBER: _ClassVar[int]
    REPLICA_FIELD_NUMBER: _ClassVar[int]
    reply: Reply
    replica: str
    def __init__(self, reply: _Optional[_Union[Reply, _Mapping]] = ..., replica: _Optional[str] = ...) -> None: ...

class StreamStepsRequest(_message.Message):
    __slots__ = ("operations",)
    OPERATIONS_FIELD_NUMBER: _ClassVar[int]
    operations: _containers.RepeatedCompositeFieldContainer[Operation]
    def __init__(self, operations: _Optional[_Iterable[_Union[Operation, _Mapping]]] = ...) -> None: ...

class StreamStepsResponse(_message.Message):
    __slots__ = ("outcomes", "replica")
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    REPLICA_FIELD_NUMBER: _ClassVar[int]
    outcomes: _containers.RepeatedCompositeFieldContainer[Outcome]
    replica: str
    def __init__(self, outcomes: _Optional[_Iterable[_Union[Outcome, _Mapping]]] = ..., replica: _Optional[str] = ...) -> None: ...

class Operation(_message.Message):
    __slots__ = ("tag", "open", "step", "close", "cancel", "epoch")
    TAG_FIELD_NUMBER: _ClassVar[int]
    OPEN_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    CLOSE_FIELD_NUMBER: _ClassVar[int]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    tag: int
    open: CreateSessionRequest
    step: Chunk
    close: str
    cancel: int
    epoch: int
    def __init__(self, tag: _Optional[int] = ..., open: _Optional[_Union[CreateSessionRequest, _Mapping]] = ..., step: _Optional[_Union[Chunk, _Mapping]] = ..., close: _Optional[str] = ..., cancel: _Optional[int] = ..., epoch: _Optional[int] = ...) -> None: ...

class Outcome(_message.Message):
    __slots__ = ("tag", "opened", "reply", "closed", "error", "cancelled")
    TAG_FIELD_NUMBER: _ClassVar[int]
    OPENED_FIELD_NUMBER: _ClassVar[int]
    REPLY_FIELD_NUMBER: _ClassVar[int]
    CLOSED_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    CANCELLED_FIELD_NUMBER: _ClassVar[int]
    tag: int
    opened: Session
    reply: Reply
    closed: str
    error: Error
    cancelled: int
    def __init__(self, tag: _Optional[int] = ..., opened: _Optional[_Union[Session, _Mapping]] = ..., reply: _Optional[_Union[Reply, _Mapping]] = ..., closed: _Optional[str] = ..., error: _Optional[_Union[Error, _Mapping]] = ..., cancelled: _Optional[int] = ...) -> None: ...
