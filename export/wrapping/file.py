"""Somebody's ONNX file: its graph, and the tensors that it takes and gives."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import onnxruntime
from onnx import helper, version_converter

from export.plain_session import plain_session
from export.wrapping.refusal import FileRefused, tried
from service.spec import TYPES, Type

_SERVED: dict[int, str] = {
    helper.np_dtype_to_tensor_dtype(dtype): name for name, dtype in TYPES.items()
}
"""The types that are served, by ONNX's number of each."""

OLDEST_OPSET, LIFTED_OPSET = 13, 17
"""The first opset that is served, and the one that files of earlier ones are lifted to."""

Size = int | str
"""A size of an axis; a name, which may be empty, where the file leaves it open."""


@dataclass(frozen=True)
class Tensor:
    """An input or output of a file."""

    name: str
    type: str
    """Such as float32; of a type that is not served, ONNX's name in capitals."""
    shape: tuple[Size, ...] | None
    """None if the file does not even say how many axes there are."""

    @property
    def served_type(self) -> Type:
        """The type, of a tensor that can be served."""
        assert self.type in TYPES
        return cast("Type", self.type)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type in numpy."""
        return TYPES[self.type]

    def __str__(self) -> str:
        """Return type and shape, such as `float32 [2, batch, ?]`."""
        if self.shape is None:
            return f"{self.type} of any shape"
        return f"{self.type} [{', '.join(str(size) or '?' for size in self.shape)}]"


@dataclass(frozen=True)
class OnnxFile:
    """A file that onnx and onnxruntime can read, with its weights, also those of other files."""

    path: Path
    proto: onnx.ModelProto
    """In an opset that is served."""
    opset: int
    """The file's own opset."""
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]

    @cached_property
    def session(self) -> onnxruntime.InferenceSession:
        """The file as it is, in plain onnxruntime."""
        return plain_session(self.path)


def read(path: Path) -> OnnxFile:
    """
    Read a file, and load it into onnxruntime.

    Raises:
        FileRefused: onnx or onnxruntime does not know it.
        OSError: it cannot be read.
    """
    content = path.read_bytes()
    if not content:
        raise FileRefused(f"{path} is empty; give an ONNX file")
    with tried(f"{path} is not an ONNX file", "give one, such as model.onnx"):
        proto = onnx.load_model_from_string(content)
        graph = proto.graph
        if not graph.node:
            raise ValueError("it has no graph")
    opset = _opset(path, proto)
    with tried(
        f"{path} keeps weights in other files, which cannot be loaded",
        "put them where they were when the file was exported",
    ):
        onnx.load_external_data_for_model(proto, str(path.absolute().parent))
    weights = {tensor.name for tensor in graph.initializer}
    file = OnnxFile(
        path,
        _lifted(path, proto, opset),
        opset,
        {value.name: _tensor(value) for value in graph.input if value.name not in weights},
        {value.name: _tensor(value) for value in graph.output},
    )
    with tried(
        f"onnxruntime {onnxruntime.__version__} cannot load {path}",
        "export it again for this version, with operators that it has",
    ):
        file.session  # noqa: B018 - loads it
    return file


def _opset(path: Path, proto: onnx.ModelProto) -> int:
    versions = [each.version for each in proto.opset_import if each.domain in ("", "ai.onnx")]
    newest = onnx.defs.onnx_opset_version()
    opset = max(versions, default=newest)
    if not 1 <= opset <= newest:
        raise FileRefused(
            f"{path} is of ONNX opset {opset}, and onnx {onnx.__version__} knows 1 to {newest}; "
            "export it with one of those"
        )
    return opset


def _lifted(path: Path, proto: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """Return the model in an opset that is served; what it computes is verified later."""
    if opset >= OLDEST_OPSET:
        return proto
    with tried(
        f"{path} is of ONNX opset {opset}, and onnx cannot lift it to {LIFTED_OPSET}",
        f"export it again with opset {OLDEST_OPSET} or later",
    ):
        return version_converter.convert_version(proto, LIFTED_OPSET)


def _tensor(value: onnx.ValueInfoProto) -> Tensor:
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        return Tensor(value.name, str(kind).removesuffix("_type").upper(), None)
    tensor = value.type.tensor_type
    number = tensor.elem_type
    shape = None
    if tensor.HasField("shape"):
        shape = tuple(
            axis.dim_value if axis.dim_value > 0 else axis.dim_param for axis in tensor.shape.dim
        )
    return Tensor(value.name, _SERVED.get(number) or onnx.TensorProto.DataType.Name(number), shape)
