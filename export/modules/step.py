"""
A module of somebody's own as the server needs it: a step with tensors in and tensors out.

The served state has the batch first and the locations last. The module keeps its own axes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from export.modules.refusal import ModuleRefused, place_of_step
from service.spec import (
    LOCATIONS,
    Dimension,
    Initial,
    ModelSpec,
    StateTensor,
    TraceTensor,
    vector,
)

State = Any
"""A tensor, or tuples, lists, dictionaries and named tuples of tensors."""

_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)


@dataclass(frozen=True)
class Axes:
    """Where a state tensor of a module has its batch and its locations."""

    name: str
    batch: int
    locations: int | None
    rank: int

    def served(self, tensor: Tensor) -> Tensor:
        """Return a module's tensor with the batch first and the locations last."""
        moved = tensor.permute(self._order) if self._moves else tensor
        return moved.unsqueeze(1) if self.is_one_head else moved

    def own(self, tensor: Tensor) -> Tensor:
        """Return a served tensor with the axes as the module has them."""
        moved = tensor.squeeze(1) if self.is_one_head else tensor
        if not self._moves:
            return moved
        order = self._order
        return moved.permute([order.index(axis) for axis in range(self.rank)])

    @property
    def is_one_head(self) -> bool:
        """Whether it is a weighting [B, N] of a single head; it is served as [B, 1, N]."""
        return self.name == "weighting" and self.locations is not None and self.rank == 2

    @property
    def _order(self) -> list[int]:
        special = [self.batch] + ([] if self.locations is None else [self.locations])
        others = [axis for axis in range(self.rank) if axis not in special]
        return [self.batch, *others, *special[1:]]

    @property
    def _moves(self) -> bool:
        return self._order != list(range(self.rank))


class Step(nn.Module):
    """A module with the flat signature of the graph: x and state in; y, state and traces out."""

    def __init__(self, module: nn.Module, example: State, axes: Sequence[Axes]) -> None:
        """`example` is the module's state, whose structure every state has."""
        super().__init__()
        self.module = module
        self.axes = tuple(axes)
        self.like: State = pytree.tree_map(lambda _: 0, example)
        """The structure of the state, with zeros for tensors."""
        self.traces: tuple[str, ...] = ()
        """Names of the traces, in the order of the outputs."""
        self.replaced: frozenset[int] = frozenset()
        """
        State tensors whose next value does not depend on the last, by position. The server needs
        the graph to read each state, so they are chosen from both values.
        """

    def state_of(self, tensors: Sequence[Tensor]) -> State:
        """Return tensors, with the module's own axes, in the structure of its state."""
        return pytree.tree_unflatten(tensors, pytree.tree_structure(self.like))

    def forward(self, x: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """Return y [B, Y], the next state, and the traces [B, heads, width]."""
        # A module may change what it gets in place.
        own = [axes.own(tensor.clone()) for axes, tensor in zip(self.axes, state, strict=True)]
        y, after, traces = parts(self.module, x.clone(), self.state_of(own))
        following = [axes.served(after[axes.name]) for axes in self.axes]
        for at in self.replaced:
            following[at] = torch.stack((state[at], following[at]))[1]
        shown = [traces[name] for name in self.traces]
        return (y, *following, *(t.unsqueeze(1) if t.dim() == 2 else t for t in shown))


def parts(
    module: nn.Module, x: Tensor, state: State
) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """
    Make a step of a module; return the output, the next state by name, and the traces by name.

    Raises:
        ModuleRefused: the module does not return (y, state), or (y, state, traces).
    """
    place = place_of_step(module)
    result = module(x, state)
    if not isinstance(result, tuple) or len(result) not in (2, 3):
        many = f"{len(result)} results" if isinstance(result, tuple) else type(result).__name__
        raise ModuleRefused(
            f"forward returns {many}; it must return (y, state) or (y, state, traces)", place
        )
    y, after, traces = result if len(result) == 3 else (*result, {})
    if not isinstance(y, Tensor):
        raise ModuleRefused(f"the first result is {type(y).__name__}; it must be a tensor", place)
    if not isinstance(traces, Mapping):
        raise ModuleRefused(
            f"the third result is {type(traces).__name__}; it must be a dictionary of traces, "
            "tensors [B, heads, width] by name",
            place,
        )
    before, found = named(state, place), named(after, place)
    if before.keys() != found.keys():
        raise ModuleRefused(
            f"the state goes in as {', '.join(before)} and comes out as {', '.join(found)}; "
            "forward must return a state of the structure that it takes",
            place,
        )
    for name, trace in traces.items():
        if not isinstance(trace, Tensor):
            raise ModuleRefused(f"the trace {name!r} is {type(trace).__name__}, no tensor", place)
    return y, found, dict(traces)


def named(state: State, place: str = "") -> dict[str, Tensor]:
    """
    Return the tensors of a state by name: keys and fields, or state_0, state_1 of a tuple.

    Raises:
        ModuleRefused: it has a value that is no tensor, or a name that is none.
    """
    found = {}
    for path, value in pytree.tree_flatten_with_path(state)[0]:
        pieces = [
            str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", "")))) for key in path
        ]
        name = (
            "_".join(pieces) if pieces and not pieces[0].isdigit() else "_".join(("state", *pieces))
        )
        if not isinstance(value, Tensor):
            raise ModuleRefused(
                f"the state has {value!r:.80} as {name}; every part of it must be a tensor", place
            )
        check_name("state", name)
        if name in found:
            raise ModuleRefused(f"two tensors of the state are called {name}", place)
        found[name] = value
    return found


def called(name: str) -> str:
    """Return how a sentence calls a state tensor; a state of one tensor is called `state`."""
    return name if name == "state" else f"state {name}"


def check_name(what: str, name: object) -> None:
    """Raise ModuleRefused for a name that is not made of letters, digits and underscores."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ModuleRefused(
            f"a {what} is called {name!r}; a name has letters, digits and underscores, and starts "
            "with none of the digits"
        )


class Recurrent(nn.Module):
    """One time step of `torch.nn.LSTM`, `GRU` or `RNN`, whose state has the layers first."""

    def __init__(self, layers: nn.RNNBase) -> None:
        """Raises ModuleRefused for layers that read from a sequence's end, or have a projection."""
        super().__init__()
        if layers.bidirectional:
            raise ModuleRefused(
                "the layers are bidirectional, and read a sequence from its end too; a session "
                "gets one step after another: take bidirectional=False"
            )
        if layers.proj_size:
            raise ModuleRefused(
                "the layers have a projection, which PyTorch writes wrongly as ONNX; take "
                "proj_size=0, and a torch.nn.Linear after the layers"
            )
        self.layers = layers

    def forward(self, x: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """`x` [B, X], state [layers, B, H] -> the last layer's hidden values and the next state."""
        at = 1 if self.layers.batch_first else 0
        own = tuple(state.values()) if len(state) > 1 else state["hidden"]
        y, after = self.layers(x.unsqueeze(at), own)
        return y.squeeze(at), dict(zip(state, after if len(state) > 1 else (after,), strict=True))


class Cell(nn.Module):
    """One step of `torch.nn.LSTMCell`, `GRUCell` or `RNNCell`."""

    def __init__(self, cell: nn.RNNCellBase) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """`x` [B, X], state [B, H] -> hidden values and the next state."""
        after = self.cell(x, tuple(state.values()) if len(state) > 1 else state["hidden"])
        following = dict(zip(state, after if len(state) > 1 else (after,), strict=True))
        return following["hidden"], following


def adapted(module: nn.Module, batch: int, state: State) -> tuple[nn.Module, State, dict[str, int]]:
    """
    Return PyTorch's own recurrent layers as a module with named state, and other modules as given.

    Layers without a state start at zeros, as PyTorch has it. A state of theirs is what they take: a
    tensor, or the pair of hidden and cell. The third result has the axes of the batch that are
    known.
    """
    wrapped: nn.Module
    shape: tuple[int, ...]
    if isinstance(module, nn.RNNBase):
        shape, axis = (module.num_layers, batch, module.hidden_size), 1
        wrapped = Recurrent(module)
    elif isinstance(module, nn.RNNCellBase):
        shape, axis = (batch, module.hidden_size), 0
        wrapped = Cell(module)
    else:
        return module, state, {}
    pair = isinstance(module, nn.LSTM | nn.LSTMCell)
    names = ("hidden", "cell") if pair else ("hidden",)
    if state is None:
        state = [torch.zeros(shape) for _ in names]
    elif not pair:
        state = [state]
    values = list(state) if isinstance(state, list | tuple) else []
    if [getattr(value, "shape", None) for value in values] != [shape] * len(names):
        raise ModuleRefused(
            f"torch.nn.{type(module).__name__} takes {' and '.join(names)} as its state, each a "
            f"tensor of shape {list(shape)}; leave the state out for zeros"
        )
    return wrapped, dict(zip(names, values, strict=True)), dict.fromkeys(names, axis)


def axes_of(
    state: Mapping[str, Tensor],
    batch: int,
    batch_axes: Mapping[str, int],
    locations: Mapping[str, int],
) -> list[Axes]:
    """
    Find the batch axis of every state tensor: the one that is as long as the batch of x.

    Args:
        state: The example's state by name.
        batch: The example's batch.
        batch_axes: Axes that were told, by name.
        locations: Axes of the locations, by name.

    Raises:
        ModuleRefused: a tensor has no such axis, or several.
    """
    for option, told in (("batch_axes", batch_axes), ("locations", locations)):
        for name, axis in told.items():
            if name not in state:
                raise ModuleRefused(f"{option} names {name!r}; the state has {', '.join(state)}")
            if not 0 <= axis < state[name].dim():
                raise ModuleRefused(
                    f"{option} says axis {axis} of {name}, which has shape "
                    f"{list(state[name].shape)}; axes are counted from 0"
                )
    found = []
    for name, tensor in state.items():
        shape = list(tensor.shape)
        along = locations.get(name)
        fitting = [axis for axis, size in enumerate(shape) if size == batch and axis != along]
        if name in batch_axes:
            fitting = [axis for axis in fitting if axis == batch_axes[name]]
        if not fitting:
            raise ModuleRefused(
                f"{called(name)} has shape {shape}, and no axis of the batch of x, {batch}; each "
                "session has a state of its own, so give it an axis of the batch"
            )
        if len(fitting) > 1:
            raise ModuleRefused(
                f"{called(name)} has shape {shape}, and the batch of x, {batch}, may be its "
                f"{' or its '.join(f'axis {axis}' for axis in fitting)}; make the example with "
                f"another batch, such as {_unlike(state)}, or say which it is with "
                + " or ".join(f"batch_axes={{{name!r}: {axis}}}" for axis in fitting)
            )
        found.append(Axes(name, fitting[0], along, len(shape)))
    return found


def _unlike(state: Mapping[str, Tensor]) -> int:
    sizes = {size for tensor in state.values() for size in tensor.shape}
    return next(size for size in range(3, 1000) if size not in sizes)


def spec_of(
    step: Step,
    x: Tensor,
    y: Tensor,
    state: Mapping[str, Tensor],
    traces: Mapping[str, Tensor],
    *,
    task: str,
    architecture: str,
    read_heads: int | None,
) -> ModelSpec:
    """
    Return the spec of a step.

    Args:
        step: The module as a step.
        x: The example's input [B, X].
        y: Its output [B, Y].
        state: The example's state, with the module's own axes.
        traces: Its traces.
        task: The spec's.
        architecture: The spec's.
        read_heads: Rows of the weighting that are of read heads; all by default.

    Raises:
        ModuleRefused: the rows of the example start differently, or the memory is none that can be
            served.
    """
    over = {axes.name: axes for axes in step.axes if axes.locations is not None}
    counts = {name: state[name].shape[axes.locations or 0] for name, axes in over.items()}
    if len(set(counts.values())) > 1:
        raise ModuleRefused(f"the axes of locations have the sizes {counts}; they must be equal")
    locations = next(iter(counts.values()), 0)
    tensors = [_state_tensor(axes, axes.served(state[axes.name])) for axes in step.axes]
    heads = _heads(tensors) if over else 0
    reads = heads if read_heads is None else read_heads
    if not 0 <= reads <= heads:
        raise ModuleRefused(f"read_heads is {reads}; the weighting has {heads} heads")
    fixed = any(tensor.initial.rule == "values" and LOCATIONS in tensor.shape for tensor in tensors)
    shown = []
    for name in step.traces:
        shape = tuple(traces[name].shape)
        heads = 1 if len(shape) == 2 else shape[1]
        shown.append(TraceTensor(name, f"trace/{name}", 0, heads, shape[-1]))
    return ModelSpec(
        task=task,
        architecture=architecture,
        inputs=(vector("step/x", x.shape[1]),),
        outputs=(vector("step/y", y.shape[1]),),
        state=tuple(tensors),
        traces=tuple(shown),
        read_heads=reads,
        write_heads=heads - reads,
        default_locations=locations,
        fixed_locations=fixed,
    )


def _state_tensor(axes: Axes, served: Tensor) -> StateTensor:
    """Describe a served tensor [B, ...]. Names of the graph are none that PyTorch gives values."""
    first = served[0]
    if not torch.isfinite(served).all():
        raise ModuleRefused(f"the example's {axes.name} has values that are infinite or NaN")
    if not torch.equal(served, first.expand_as(served)):
        raise ModuleRefused(
            f"the rows of the example's {axes.name} differ; every session starts with the same "
            "state, so give the example equal rows"
        )
    shape: tuple[Dimension, ...] = tuple(first.shape)
    if axes.locations is not None:
        shape = (*shape[:-1], "N")
    array = first.numpy()
    initial = Initial("values", tuple(first.flatten().tolist()))
    for rule in (Initial("constant", (float(array.flat[0]),)), Initial("one_hot")):
        if (rule.value(array.shape) == array).all():
            initial = rule
            break
    name = axes.name
    return StateTensor(name, f"state/{name}", f"next/{name}", shape, initial)


def _heads(tensors: Sequence[StateTensor]) -> int:
    """Return the heads of a memory that sessions choose the size of."""
    shapes = {tensor.name: tensor.shape for tensor in tensors}
    memory, weighting = shapes.get("memory", ()), shapes.get("weighting", ())
    if [len(shape) for shape in (memory, weighting)] != [2, 2] or memory[1:] != weighting[1:]:
        raise ModuleRefused(
            "a memory with locations that sessions choose needs the state tensors memory, [B, N, "
            "width], and weighting, [B, heads, N], both named in locations, and has "
            f"{', '.join(f'{name} {list(shape)}' for name, shape in shapes.items())}; leave "
            "locations out for a state of one size"
        )
    return int(weighting[0])
