"""Folders of models that cannot be served, each for another reason."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from service.spec import Initial, ModelSpec, vector
from tests.support.rich_models import of_the_second_axis
from tests.support.tiny_models import LEDGER, ledger, not_loadable


class Broken(NamedTuple):
    """A way to break a model."""

    make: Callable[[Path], object]
    """Makes the folder of the model at a path."""
    why: str
    """A pattern for a part of the reason."""


def contents() -> dict[str, tuple[bytes, str]]:
    """Contents of files that cannot be served, and a pattern for a part of the reason."""
    total, memory, weighting = LEDGER.state
    return {
        "empty": (b"", "the file is empty"),
        "garbage": (b"garbage", "not a valid ONNX model"),
        "cut short": (ledger()[:-40], "not a valid ONNX model"),
        "opset 12": (_of(_opset(12)), "of ONNX opset 12; export it with one from 13 to"),
        "opset to come": (_of(_opset(1000)), "of ONNX opset 1000"),
        "format to come": (_of(_ir_version), "ir_version 1000 is higher"),
        "no opset": (_of(lambda proto: proto.ClearField("opset_import")), "not a valid"),
        "unknown operator": (_of(_operator("Frobnicate")), "No Op registered for Frobnicate"),
        "operator of a company": (_of(_domain), "com.example"),
        "not supported by onnxruntime": (not_loadable(), "onnxruntime cannot load"),
        "cycle": (_of(_cycle), "topologically sorted"),
        "no graph": (_of(lambda proto: proto.ClearField("graph")), "not a valid ONNX model"),
        "no shapes": (_of(_no_shapes), "not a valid ONNX model"),
        "batch of one": (_of(_sizes(0, 1)), r"'x' has shape \[1, 2\]"),
        "batch of four": (_of(_sizes(0, 4)), r"'x' has shape \[4, 2\]"),
        "batch of two inside": (_of(_batch_inside(2)), "cannot be run"),
        "batch of four inside": (_of(_batch_inside(4)), "cannot be run"),
        "batch on the second axis": (
            of_the_second_axis(),
            r"steps one session in a run, but not 2 \(.*\); export it with the batch as the first",
        ),
        "fixed memory": (_of(_sizes(2, 8)), "'memory' has shape"),
        "memory of eight inside": (_of(_memory_of_eight_inside), "cannot be run"),
        "double input": (_of(_double), "'x' is not float32"),
        "NaN weights": (_of(_weights(np.nan)), "weights 'nought' have values that are NaN"),
        "weights elsewhere": (_of(_elsewhere), "weights in other files"),
        "no spec": (_of(lambda proto: proto.ClearField("metadata_props")), "no spec"),
        "empty spec": (ledger(metadata=""), "spec in the metadata cannot be read"),
        "spec without fields": (ledger(metadata="{}"), "spec format is None; this server reads"),
        "other input width": (_spec(inputs=(vector("x", 5),)), r"'x' has shape \['any', 2\]"),
        "other output width": (_spec(outputs=(vector("y", 5),)), "spec says 5"),
        "other state": (
            _spec(state=(replace(total, shape=(3,), initial=_ZERO), memory, weighting)),
            "'z_total' has shape",
        ),
        "state without an axis": (
            _spec(state=(total, replace(memory, shape=("N",)), weighting)),
            "'memory' has shape",
        ),
        "other trace": (_spec(traces=(replace(LEDGER.traces[2], width=7),)), "has width 2"),
        "other heads": (_spec(traces=(replace(LEDGER.traces[0], heads=3),)), "has 2 heads"),
        "unknown input": (_spec(inputs=(vector("nothing", 2),)), "graph inputs are"),
        "infinite start": (
            _spec(state=(replace(total, initial=_infinite()), memory, weighting)),
            "initial value that is infinite or NaN",
        ),
        "too large a state": (_spec(default_locations=2**40), "more than --max-state-bytes"),
    }


def broken() -> dict[str, Broken]:
    """Every way to break a model, by what is wrong."""
    ways = {name: Broken(_writer(content), why) for name, (content, why) in contents().items()}
    return ways | {
        "folder in place of the file": Broken(
            lambda folder: (folder / "model.onnx").mkdir(parents=True), "Is a directory"
        ),
        "pipe in place of the file": Broken(_pipe, "not a file"),
        "link to nothing": Broken(_link("nothing"), "No such file or directory"),
        "link to itself": Broken(_link("model.onnx"), "symbolic links"),
        "folder that is a link to itself": Broken(
            lambda folder: folder.symlink_to(folder.name), "symbolic links"
        ),
    }


WRONG_NAMES = {
    "not UTF-8": os.fsdecode(b"z\xff"),
    "a newline": "two\nlines",
    "an escape": "\x1b[2Jcleared",
    "a direction": "\u202ereversed",
    "too long": "a" * 129,
}
"""Names that no model, and no version of one, can have."""


def _writer(content: bytes) -> Callable[[Path], object]:
    def write(folder: Path) -> None:
        folder.mkdir()
        (folder / "model.onnx").write_bytes(content)

    return write


def _pipe(folder: Path) -> None:
    folder.mkdir()
    os.mkfifo(folder / "model.onnx")


def _link(target: str) -> Callable[[Path], object]:
    def link(folder: Path) -> None:
        folder.mkdir()
        (folder / "model.onnx").symlink_to(target)

    return link


_ZERO = Initial("constant", (0.0,))


def _infinite() -> Initial:
    return Initial("values", (1e39, 0.0))


def _spec(**changes: object) -> bytes:
    """The ledger with another spec."""
    spec: ModelSpec = replace(LEDGER, **changes)  # type: ignore[arg-type] # chosen to be wrong
    return ledger(spec=LEDGER, metadata=spec.to_json())


def _of(change: Callable[[onnx.ModelProto], object]) -> bytes:
    """The ledger, changed."""
    proto = onnx.load_model_from_string(ledger())
    change(proto)
    serialized: bytes = proto.SerializeToString()
    return serialized


def _opset(version: int) -> Callable[[onnx.ModelProto], None]:
    def change(proto: onnx.ModelProto) -> None:
        proto.opset_import[0].version = version

    return change


def _ir_version(proto: onnx.ModelProto) -> None:
    proto.ir_version = 1000


def _operator(name: str) -> Callable[[onnx.ModelProto], None]:
    def change(proto: onnx.ModelProto) -> None:
        proto.graph.node[0].op_type = name

    return change


def _domain(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].domain = "com.example"
    proto.opset_import.append(helper.make_opsetid("com.example", 1))


def _cycle(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].input[1] = "y"


def _no_shapes(proto: onnx.ModelProto) -> None:
    for value in [*proto.graph.input, *proto.graph.output]:
        value.type.tensor_type.ClearField("shape")


def _sizes(axis: int, size: int) -> Callable[[onnx.ModelProto], None]:
    """Fix an axis of every input and output that has no size there."""

    def change(proto: onnx.ModelProto) -> None:
        for value in [*proto.graph.input, *proto.graph.output]:
            axes = value.type.tensor_type.shape.dim
            if len(axes) > axis and not axes[axis].dim_value:
                axes[axis].dim_value = size

    return change


def _batch_inside(rows: int) -> Callable[[onnx.ModelProto], None]:
    """The declared shapes are right, and the output is made for this number of rows."""

    def change(proto: onnx.ModelProto) -> None:
        sums = next(node for node in proto.graph.node if node.output[0] == "y")
        sums.output[0] = "y_of_any_size"
        shape = numpy_helper.from_array(np.array([rows, 2], np.int64), "y_shape")
        proto.graph.initializer.append(shape)
        proto.graph.node.append(helper.make_node("Reshape", ["y_of_any_size", "y_shape"], ["y"]))

    return change


def _memory_of_eight_inside(proto: onnx.ModelProto) -> None:
    """The declared shapes are right, and a weight spans the default number of locations."""
    proto.graph.initializer.append(numpy_helper.from_array(np.zeros(8, np.float32), "eight"))
    addition = next(node for node in proto.graph.node if node.output[0] == "c_memory")
    addition.output[0] = "memory_of_any_size"
    node = helper.make_node("Add", ["memory_of_any_size", "eight"], ["c_memory"])
    proto.graph.node.append(node)


def _double(proto: onnx.ModelProto) -> None:
    proto.graph.input[0].type.tensor_type.elem_type = TensorProto.DOUBLE


def _weights(value: float) -> Callable[[onnx.ModelProto], None]:
    def change(proto: onnx.ModelProto) -> None:
        weights = next(each for each in proto.graph.initializer if each.name == "nought")
        weights.raw_data = np.array([value], np.float32).tobytes()

    return change


def _elsewhere(proto: onnx.ModelProto) -> None:
    weights = next(each for each in proto.graph.initializer if each.name == "nought")
    weights.ClearField("raw_data")
    weights.data_location = TensorProto.EXTERNAL
    weights.external_data.add(key="location", value="weights.bin")
