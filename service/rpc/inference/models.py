"""What the protocol says of models."""

from __future__ import annotations

from collections.abc import Sequence

from service.inference.v2 import inference_pb2 as pb
from service.models.version import Version
from service.rpc.inference.requests import DATATYPES
from service.spec import ModelSpec, StepTensor

PLATFORM = "onnxruntime_onnx"
"""What clients know ONNX models by."""

_BACKEND = "onnxruntime"

_DATA_TYPES = {
    "bool": pb.DATA_TYPE_BOOL,
    "int32": pb.DATA_TYPE_INT32,
    "int64": pb.DATA_TYPE_INT64,
    "float16": pb.DATA_TYPE_FP16,
    "float32": pb.DATA_TYPE_FP32,
}


def number(version: Version) -> str:
    """
    A version as the protocol names it. Some clients need a number: it is that of the first 15
    hexadecimal digits of the content hash.
    """
    return str(int(version.content_hash[:15], 16))


def metadata(model: str, spec: ModelSpec, versions: Sequence[Version]) -> pb.ModelMetadataResponse:
    """The inputs and outputs of a model. Traces are no outputs: some clients ask for all."""
    return pb.ModelMetadataResponse(
        name=model,
        versions=[number(version) for version in versions],
        platform=PLATFORM,
        inputs=[_tensor(tensor) for tensor in spec.inputs],
        outputs=[_tensor(tensor) for tensor in spec.outputs],
    )


def _tensor(tensor: StepTensor) -> pb.ModelMetadataResponse.TensorMetadata:
    return pb.ModelMetadataResponse.TensorMetadata(
        name=tensor.name, datatype=DATATYPES[tensor.type], shape=(-1, *tensor.shape)
    )


def config(
    model: str, spec: ModelSpec, max_sequences: int, idle_timeout_seconds: float
) -> pb.ModelConfig:
    """The configuration of a model as Triton would have it."""
    oldest = pb.ModelSequenceBatching.StrategyOldest(
        max_candidate_sequences=min(max_sequences, 2**31 - 1)
    )
    return pb.ModelConfig(
        name=model,
        platform=PLATFORM,
        backend=_BACKEND,
        max_batch_size=1,
        input=[
            pb.ModelInput(name=each.name, data_type=_DATA_TYPES[each.type], dims=each.shape)
            for each in spec.inputs
        ],
        output=[
            pb.ModelOutput(name=each.name, data_type=_DATA_TYPES[each.type], dims=each.shape)
            for each in spec.outputs
        ],
        sequence_batching=pb.ModelSequenceBatching(
            max_sequence_idle_microseconds=round(idle_timeout_seconds * 1e6), oldest=oldest
        ),
        model_transaction_policy=pb.ModelTransactionPolicy(decoupled=False),
    )
