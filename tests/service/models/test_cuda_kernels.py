"""Every node of every served graph has a kernel for CUDA, so that none falls back to the CPU."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from service.models import graph
from tests.support.served import MODELS

TABLE = Path(__file__).with_name("cuda_kernels.csv")
CONSTRAINTS = Path(__file__).parents[3] / "constraints.txt"
SHIPPED = sorted(path.parent.name for path in MODELS.glob("*/model.onnx"))

MICROSOFT = "com.microsoft"
"""The domain of onnxruntime's own operators; each is at version 1."""

LEAVE_THE_GPU = {"If", "Loop", "NonZero", "Scan", "Shape", "Size"}
"""
Operators that have CUDA kernels and yet use the CPU in every run.

Some put their output into the CPU's memory, and onnxruntime then keeps what computes with it on the
CPU; others wait for a number from the GPU. Shape arithmetic would be harmless to the slab, which it
never holds, but it forbids CUDA graphs, and graphs whose shapes are known when they are exported
have no use for it.
"""


@dataclass(frozen=True)
class Kernel:
    """One row of the table."""

    since: int
    until: int | None
    types: Mapping[str, frozenset[str]]
    """What it takes, by type variable of the operator, or by parameter."""
    inputs: Sequence[str]
    outputs: Sequence[str]

    def serves(self, version: int) -> bool:
        """Whether onnxruntime takes it for that version of the operator."""
        return version == self.since or (
            self.until is not None and self.since <= version <= self.until
        )


@dataclass(frozen=True)
class Formal:
    """A parameter of an operator: its name, and a type variable or a type."""

    name: str
    type: str


@cache
def kernels() -> dict[tuple[str, str], list[Kernel]]:
    """The table, by domain and operator."""
    found: dict[tuple[str, str], list[Kernel]] = {}
    with TABLE.open() as file:
        for row in csv.DictReader(line for line in file if not line.startswith("#")):
            types = dict(part.split("=") for part in row["types"].split("; ") if part)
            kernel = Kernel(
                int(row["since"]),
                int(row["until"]) if row["until"] else None,
                {name: frozenset(allowed.split()) for name, allowed in types.items()},
                row["inputs"].split(),
                row["outputs"].split(),
            )
            domain = row["domain"].removeprefix("ai.onnx")
            found.setdefault((domain, row["operator"]), []).append(kernel)
    return found


def signature(
    node: onnx.NodeProto, opsets: Mapping[str, int]
) -> tuple[int, list[Formal], list[Formal]]:
    """The version of a node's operator, and the parameters that its inputs and outputs are."""
    if node.domain == MICROSOFT:
        known = kernels()[MICROSOFT, node.op_type][0]
        version = 1
        inputs, outputs = ([Formal("", t) for t in side] for side in (known.inputs, known.outputs))
    else:
        schema = onnx.defs.get_schema(node.op_type, opsets[node.domain], node.domain)
        version = schema.since_version
        inputs, outputs = (
            [Formal(formal.name, bare(formal.type_str)) for formal in side]
            for side in (schema.inputs, schema.outputs)
        )

    def fitted(formals: list[Formal], count: int) -> list[Formal]:
        return (formals + formals[-1:] * (count - len(formals)))[:count]

    return version, fitted(inputs, len(node.input)), fitted(outputs, len(node.output))


def bare(name: str) -> str:
    """A type as the table writes it; a type variable as it is."""
    return name.removeprefix("tensor(").removesuffix(")")


def known_types(model: onnx.ModelProto) -> dict[str, str]:
    """The element types of all values that onnx can tell, by name."""
    inferred = onnx.shape_inference.infer_shapes(model).graph
    values = [*inferred.input, *inferred.value_info, *inferred.output]
    codes = {value.name: value.type.tensor_type.elem_type for value in values}
    codes |= {tensor.name: tensor.data_type for tensor in inferred.initializer}
    return {
        name: TensorProto.DataType.Name(code).lower() for name, code in codes.items() if code != 0
    }


def without_kernel(model: bytes) -> Iterator[str]:
    """The nodes of a model for which onnxruntime has no CUDA kernel, each with its types."""
    proto = onnx.load_model_from_string(model)
    opsets = {entry.domain.removeprefix("ai.onnx"): entry.version for entry in proto.opset_import}
    types = known_types(proto)
    for node in proto.graph.node:
        candidates = kernels().get((node.domain.removeprefix("ai.onnx"), node.op_type))
        if candidates is None:
            yield f"{node.op_type} of {node.domain or 'ai.onnx'}"
            continue
        version, inputs, outputs = signature(node, opsets)
        bound: dict[str, str] = {}
        for name, formal in zip(node.input, inputs, strict=True):
            if name:
                bound |= {formal.type: types[name], formal.name: types[name]}
        for name, formal in zip(node.output, outputs, strict=True):
            if name:
                types.setdefault(name, bound.get(formal.type, formal.type))
                bound |= {formal.type: types[name], formal.name: types[name]}
        if not any(
            kernel.serves(version)
            and all(
                bound[name] in allowed for name, allowed in kernel.types.items() if name in bound
            )
            for kernel in candidates
        ):
            yield f"{node.op_type} version {version} with {bound}"


def served_graphs(name: str) -> dict[str, bytes]:
    """The graphs that a shipped model is run by."""
    read, spec = graph.parse((MODELS / name / "model.onnx").read_bytes())
    proto = graph.served(read, spec)
    return {
        "step": graph.slab_graph(proto, spec, 2, traced=True),
        "read": graph.read_graph(spec, proto),
        "write": graph.write_graph(spec.state, proto),
    }


def made_up(
    operator: str, element_type: int, inputs: int, domain: str = "", opset: int = 18
) -> bytes:
    """A graph of one node between tensors of one type."""
    names = [f"x{index}" for index in range(inputs)]
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node(operator, names, ["y"], domain=domain)],
            operator,
            [helper.make_tensor_value_info(name, element_type, ["A", "B"]) for name in names],
            [helper.make_tensor_value_info("y", element_type, None)],
        ),
        opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid(MICROSOFT, 1)],
    )
    serialized: bytes = model.SerializeToString()
    return serialized


def test_the_table_is_of_the_release_that_is_tried() -> None:
    """A new onnxruntime may have other kernels; its table comes with its pin."""
    tabulated = re.search(r"onnxruntime-gpu ([\d.]+) ", TABLE.read_text())
    pinned = re.search(r"^onnxruntime-gpu==([\d.]+)$", CONSTRAINTS.read_text(), re.MULTILINE)

    assert tabulated
    assert pinned
    assert tabulated[1] == pinned[1]


@pytest.mark.parametrize("name", SHIPPED)
def test_every_node_of_a_served_graph_has_a_kernel_for_cuda(name: str) -> None:
    """A single node on the CPU would take the slab across the bus and back in every tick."""
    missing = {which: list(without_kernel(model)) for which, model in served_graphs(name).items()}

    assert missing == {"step": [], "read": [], "write": []}


@pytest.mark.parametrize("name", SHIPPED)
def test_nodes_that_onnxruntime_puts_in_have_kernels_for_cuda_too(
    name: str, tmp_path: Path
) -> None:
    """
    Basic optimisations come before the nodes are shared out, and are the same on every device.

    The extended ones come after, and give a node that is on the GPU to no kernel but CUDA's.
    """
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    step = served_graphs(name)["step"]
    onnxruntime.InferenceSession(step, options, providers=["CPUExecutionProvider"])

    assert list(without_kernel((tmp_path / "optimised.onnx").read_bytes())) == []


@pytest.mark.parametrize("name", [name for name in SHIPPED if not name.endswith("-dnc")])
def test_no_served_graph_leaves_the_gpu(name: str) -> None:
    """
    Shapes are known at export, and nothing branches, so a run could be a CUDA graph. A DNC's could
    not: it asks for the shape of its memory.
    """
    used = {
        node.op_type
        for model in served_graphs(name).values()
        for node in onnx.load_model_from_string(model).graph.node
    }

    assert used & LEAVE_THE_GPU == set()


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (made_up("Det", TensorProto.FLOAT, 1), "Det of ai.onnx"),
        (made_up("FusedGemm", TensorProto.FLOAT, 2, MICROSOFT), "FusedGemm of com.microsoft"),
        (made_up("MatMul", TensorProto.INT64, 2), "MatMul version 13 with"),
        (made_up("FusedMatMul", TensorProto.INT64, 2, MICROSOFT), "FusedMatMul version 1 with"),
    ],
    ids=["no kernel", "no kernel for a fused operator", "another type", "a fused one's type"],
)
def test_a_node_without_a_kernel_is_found(model: bytes, reason: str) -> None:
    """The check sees what onnxruntime would leave to the CPU without a word."""
    assert [found[: len(reason)] for found in without_kernel(model)] == [reason]


@pytest.mark.parametrize(
    "model",
    [
        made_up("MatMul", TensorProto.FLOAT, 2),
        made_up("FusedMatMul", TensorProto.FLOAT, 2, MICROSOFT),
    ],
    ids=["standard", "fused"],
)
def test_a_node_with_a_kernel_passes(model: bytes) -> None:
    """Operators of onnxruntime's own domain are held to the same table."""
    assert list(without_kernel(model)) == []


@pytest.mark.parametrize(
    ("since", "until", "version", "serves"),
    [(13, None, 13, True), (13, None, 14, False), (9, 13, 13, True), (9, 13, 14, False)],
)
def test_a_kernel_serves_only_versions_that_it_was_written_for(
    since: int, until: int | None, version: int, *, serves: bool
) -> None:
    """A kernel without an end is of the operator's newest version, until a newer one appears."""
    assert Kernel(since, until, {}, [], []).serves(version) is serves
