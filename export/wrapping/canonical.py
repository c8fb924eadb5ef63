"""
Rewrite a file's graph to the form that is served: a batch of sessions along axis 0 of every tensor.

Constants become a part of the graph, and what they decide is decided: no `If` on them remains. The
end of the input before becomes a state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnx_ir as ir
from onnxscript import optimizer

from export.wrapping.description import Description, Input, Shape
from export.wrapping.file import OnnxFile, Tensor
from export.wrapping.refusal import tried
from service.spec import TYPES

BATCH = "B"

_END = np.iinfo(np.int64).max


def next_name(name: str) -> str:
    """Return the graph's name of the next value of a state that the file does not have."""
    return f"{name}_next"


def canonical(
    file: OnnxFile,
    description: Description,
    output_shapes: Mapping[str, Shape],
) -> onnx.ModelProto:
    """
    Return the graph of a step, with the names of the file.

    Args:
        file: The file.
        description: How to step it.
        output_shapes: Of one session, by name.

    Raises:
        FileRefused: it cannot be rewritten.
    """
    with tried(
        f"the graph of {file.path} cannot be rewritten",
        "export it again with plain operators of ONNX",
    ):
        model = ir.serde.deserialize_model(file.proto)
        _Rewriting(model, description, output_shapes).run()
        optimizer.fold_constants(model, onnx_shape_inference=True, should_fold=lambda node: True)
        optimizer.optimize_ir(model)
        proto = ir.serde.serialize_model(model)
        tidied(proto)
        onnx.checker.check_model(proto)
        return proto


def tidied(proto: onnx.ModelProto) -> None:
    """Remove what other programs said of the graph, and what they inferred of its shapes."""
    graph = proto.graph
    del graph.value_info[:], graph.metadata_props[:], proto.metadata_props[:]
    for node in graph.node:
        node.ClearField("doc_string")
        del node.metadata_props[:]
    for value in (*graph.input, *graph.output):
        del value.metadata_props[:]
    proto.producer_name, proto.producer_version = "ntm-export", ""
    proto.doc_string = graph.doc_string = ""


class _Rewriting:
    """The rewriting of one model in place."""

    def __init__(
        self, model: ir.Model, description: Description, output_shapes: Mapping[str, Shape]
    ) -> None:
        self._graph = model.graph
        self._description = description
        self._output_shapes = output_shapes
        self._values: dict[str | None, ir.Value] = {v.name: v for v in model.graph.inputs}
        self._outputs: dict[str | None, ir.Value] = {v.name: v for v in model.graph.outputs}
        self._initializers = 0

    def run(self) -> None:
        """Rewrite all that goes in and out."""
        graph, made = self._graph, self._description
        for node in graph.all_nodes():
            for value in node.outputs:
                value.shape = None  # of the batch that the file was made with
        weights = [value for value in graph.inputs if value.name in graph.initializers]
        for value in weights:  # which old files list among the inputs
            graph.inputs.remove(value)
        graph.outputs.clear()
        for name, constant in made.constants.items():
            value = self._values[name]
            graph.inputs.remove(value)
            value.const_value = ir.tensor(constant, name=name)
            graph.register_initializer(value)
        for each in made.inputs:
            self._input(each)
        for state in made.states:
            self._enter(state.tensor, state.shape, state.batch_axis)
        for output in made.outputs:
            shape = self._output_shapes[output.name]
            self._leave(output.name, shape, output.batch_axis, output.tensor.type)
        for state in made.states:
            if state.output:
                self._leave(state.output.name, state.shape, state.batch_axis, state.tensor.type)
        graph.sort()

    def _input(self, each: Input) -> None:
        """Take an input in, after values of past steps if the file wants them."""
        if not each.past:
            self._enter(each.tensor, each.shape, each.batch_axis)
            return
        new = self._new_input(each.name, each.shape, each.tensor.type)
        past = self._new_input(each.past_name, each.past_shape, each.tensor.type)
        axis = each.past_axis + 1
        whole = self._node("Concat", [past, new], {"axis": axis})
        self._replace(each.name, self._to_file(whole, len(each.shape), each.batch_axis))
        bounds = [self._constant([value]) for value in (-each.past, _END, axis)]
        kept = self._node("Slice", [whole, *bounds])
        self._give(kept, next_name(each.past_name), each.past_shape, each.tensor.type)

    def _enter(self, tensor: Tensor, shape: Shape, batch_axis: int | None) -> None:
        """Make an input with the batch along axis 0 of one of the file."""
        new = self._new_input(tensor.name, shape, tensor.type)
        self._replace(tensor.name, self._to_file(new, len(shape), batch_axis))

    def _leave(self, name: str, shape: Shape, batch_axis: int | None, kind: str) -> None:
        """Make an output with the batch along axis 0 of one of the file."""
        value = self._outputs[name]
        value.name = f"{name}.in_file"
        if batch_axis is None:
            value = self._node("Unsqueeze", [value, self._constant([0])])
        elif batch_axis:
            order = [batch_axis, *(axis for axis in range(len(shape) + 1) if axis != batch_axis)]
            value = self._node("Transpose", [value], {"perm": order})
        else:
            value = self._node("Identity", [value])
        self._give(value, name, shape, kind)

    def _to_file(self, value: ir.Value, axes: int, batch_axis: int | None) -> ir.Value:
        """Put the batch where the file has it, beside so many other axes."""
        if batch_axis is None:
            return self._node("Squeeze", [value, self._constant([0])])
        if batch_axis == 0:
            return value
        order = [*range(1, axes + 1)]
        order.insert(batch_axis, 0)
        return self._node("Transpose", [value], {"perm": order})

    def _new_input(self, name: str, shape: Shape, kind: str) -> ir.Value:
        value = ir.Value(name=name)
        _declare(value, shape, kind)
        self._graph.inputs.append(value)
        return value

    def _give(self, value: ir.Value, name: str, shape: Shape, kind: str) -> None:
        value.name = name
        _declare(value, shape, kind)
        self._graph.outputs.append(value)

    def _replace(self, name: str, value: ir.Value) -> None:
        """Let the file's graph read another value in place of its input."""
        old = self._values[name]
        self._graph.inputs.remove(old)
        old.name = f"{name}.in_file"
        ir.convenience.replace_all_uses_with(old, value)
        for key, output in self._outputs.items():
            if output is old:  # a file may give back what it takes
                self._outputs[key] = self._node("Identity", [value])

    def _node(
        self,
        operator: str,
        inputs: Sequence[ir.Value],
        attributes: Mapping[str, int | Sequence[int]] | None = None,
    ) -> ir.Value:
        node = ir.node(operator, inputs, attributes=dict(attributes or {}))
        self._graph.append(node)
        return node.outputs[0]

    def _constant(self, value: int | Sequence[int]) -> ir.Value:
        self._initializers += 1
        name = f"wrapping.{self._initializers}"
        constant = ir.Value(name=name, const_value=ir.tensor(np.array(value, np.int64), name=name))
        self._graph.register_initializer(constant)
        return constant


def _declare(value: ir.Value, shape: Shape, kind: str) -> None:
    value.shape = ir.Shape([BATCH, *shape])
    value.dtype = ir.DataType.from_numpy(TYPES[kind])
