"""
Read a checkpoint of pytorch-ntm: `torch.save` of an `EncapsulatedNTM`'s `state_dict()`.

Only tensors are read. A file with anything that would have to be unpickled by its own code is
refused. All sizes of the network follow from names and shapes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from export import saved_file
from export.saved_file import Refused

Float64 = npt.NDArray[np.float64]
Kind = Literal["read", "write"]

SAVE = "save one with torch.save(net.state_dict(), FILE), as its train.py does"

MEMORY = "ntm.memory.mem_bias"
HIDDEN, CELL = "ntm.controller.lstm_h_bias", "ntm.controller.lstm_c_bias"
LSTM = "ntm.controller.lstm"
FIRST_LAYER = f"{LSTM}.weight_ih_l0"
OUTPUT = "ntm.fc.weight"

SCALARS = 6
"""The parameters of a head beside its vectors: beta, g, three shifts and gamma."""

_HEAD = re.compile(r"ntm\.heads\.([0-9]{1,4})\.fc_(read|write)\.weight", re.ASCII)
_COPY = re.compile(r"memory\.mem_bias|ntm\.heads\.[0-9]{1,4}\.memory\.mem_bias", re.ASCII)


class CheckpointInvalid(ValueError):
    """A file is no checkpoint of pytorch-ntm; the message names it and says why."""


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of a network in double precision, and the sizes that follow from them."""

    tensors: Mapping[str, Float64]
    """By the names that `EncapsulatedNTM.state_dict()` gives them."""
    heads: tuple[Kind, ...]
    """In the order in which they act."""
    inputs: int
    outputs: int
    locations: int
    """N"""
    width: int
    """M, of the memory."""
    controller_size: int
    layers: int

    @property
    def reads(self) -> int:
        """The number of read heads."""
        return self.heads.count("read")

    @property
    def writes(self) -> int:
        """The number of write heads."""
        return self.heads.count("write")

    @property
    def parameters(self) -> int:
        """The number of learned values: the start of memory and reads is drawn, not learned."""
        drawn = ("mem_bias", *(f"ntm.read{row}_bias" for row in range(self.reads)))
        return sum(value.size for name, value in self.tensors.items() if not name.endswith(drawn))

    def head(self, index: int) -> tuple[Float64, Float64]:
        """Return weight [outputs, C] and bias of a head's layer."""
        layer = f"ntm.heads.{index}.fc_{self.heads[index]}"
        return self.tensors[f"{layer}.weight"], self.tensors[f"{layer}.bias"]


def read(path: Path) -> Checkpoint:
    """
    Read a checkpoint.

    Raises:
        CheckpointInvalid: the file holds something else, or its tensors contradict each other.
        OSError: the file cannot be read.
    """
    try:
        return _checked(_arrays(saved_file.read(path, SAVE)))
    except Refused as error:
        raise CheckpointInvalid(f"{path} {error}") from error.__cause__


def _arrays(loaded: object) -> dict[str, Float64]:
    """Return tensors as float64; refuse what is none, or not finite."""
    if not isinstance(loaded, Mapping) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in loaded.items()
    ):
        raise Refused(f"holds no tensors by name; {SAVE}")
    return {name: _array(name, value) for name, value in loaded.items()}


def _array(name: str, tensor: Tensor) -> Float64:
    plain = tensor.layout is torch.strided and not tensor.is_quantized and not tensor.is_meta
    if not plain or not tensor.is_floating_point():
        raise Refused(f"has {name!r} of type {tensor.dtype}; it must be a dense tensor of floats")
    values: Float64 = tensor.detach().double().numpy()
    if not np.isfinite(values).all() or np.abs(values).max(initial=0) > np.finfo(np.float32).max:
        raise Refused(
            f"has NaN or infinity in {name!r}; its training diverged, so take an earlier one"
        )
    return values


def _checked(tensors: dict[str, Float64]) -> Checkpoint:
    """Return the network of these tensors; refuse what is missing, too much or contradicts."""
    # The heads hold the one memory too, so that its start is there several times.
    copies = {name: tensors.pop(name) for name in [*tensors] if _COPY.fullmatch(name)}
    heads = _heads(tensors)
    locations, width = _shape(tensors, MEMORY, "[N, M]")
    layers, _, size = _shape(tensors, HIDDEN, "[layers, 1, size]")
    _, fed = _shape(tensors, FIRST_LAYER, "[4 size, inputs + reads M]")
    outputs, _ = _shape(tensors, OUTPUT, "[outputs, size + reads M]")
    reads = heads.count("read")
    inputs = fed - reads * width
    if inputs < 1:
        raise Refused(
            f"has {FIRST_LAYER!r} for {fed} inputs; {reads} read vectors of width {width} leave "
            "no input of the network"
        )
    expected = {
        MEMORY: (locations, width),
        HIDDEN: (layers, 1, size),
        CELL: (layers, 1, size),
        OUTPUT: (outputs, size + reads * width),
        "ntm.fc.bias": (outputs,),
        **{f"ntm.read{row}_bias": (1, width) for row in range(reads)},
    }
    for layer in range(layers):
        expected[f"{LSTM}.weight_ih_l{layer}"] = (4 * size, size if layer else fed)
        expected[f"{LSTM}.weight_hh_l{layer}"] = (4 * size, size)
        expected[f"{LSTM}.bias_ih_l{layer}"] = expected[f"{LSTM}.bias_hh_l{layer}"] = (4 * size,)
    for index, kind in enumerate(heads):
        rows = width + SCALARS + (2 * width if kind == "write" else 0)
        expected[f"ntm.heads.{index}.fc_{kind}.weight"] = (rows, size)
        expected[f"ntm.heads.{index}.fc_{kind}.bias"] = (rows,)
    for name, shape in expected.items():
        if name not in tensors:
            raise Refused(f"has no tensor {name!r}; {SAVE}")
        if tensors[name].shape != shape:
            raise Refused(
                f"has {name!r} of shape {list(tensors[name].shape)}; its other tensors need "
                f"{list(shape)}"
            )
    if others := sorted(tensors.keys() - expected.keys()):
        raise Refused(f"has tensors of another kind of network: {', '.join(map(repr, others[:5]))}")
    for name, value in copies.items():
        if not np.array_equal(value, tensors[MEMORY]):
            raise Refused(f"has {name!r} other than {MEMORY!r}; they are one memory")
    return Checkpoint(tensors, heads, inputs, outputs, locations, width, size, layers)


def _heads(tensors: Mapping[str, Any]) -> tuple[Kind, ...]:
    found: dict[int, Kind] = {}
    for name in tensors:
        if match := _HEAD.fullmatch(name):
            index, kind = int(match[1]), "read" if match[2] == "read" else "write"
            if index in found:
                raise Refused(f"has head {index} both as a read head and as a write head")
            found[index] = "read" if kind == "read" else "write"
    if not {"read", "write"} <= set(found.values()):
        raise Refused(
            "has no 'ntm.heads.0.fc_read.weight' and 'ntm.heads.1.fc_write.weight', so that it is "
            f"none of an EncapsulatedNTM with a head of each kind; {SAVE}"
        )
    if sorted(found) != list(range(len(found))):
        numbers = ", ".join(map(str, sorted(found)))
        raise Refused(f"has the heads {numbers}; they must be numbered from 0 without a gap")
    return tuple(found[index] for index in range(len(found)))


def _shape(tensors: Mapping[str, Float64], name: str, form: str) -> tuple[int, ...]:
    """Return the shape of a tensor that others are measured by."""
    if name not in tensors:
        raise Refused(f"has no tensor {name!r}; {SAVE}")
    shape = tensors[name].shape
    if len(shape) != form.count(",") + 1 or 0 in shape:
        raise Refused(f"has {name!r} of shape {list(shape)}; it must be {form}")
    return shape
