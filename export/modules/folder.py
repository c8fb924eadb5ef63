"""Export a module of somebody's own: check it, convert it, verify it, and write its folder."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace as changed
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from export import card, comparison, verification
from export.modules import checks, conversion
from export.modules.refusal import ModuleRefused
from export.modules.step import State, Step, adapted, axes_of, check_name, named, spec_of
from export.modules.verification import STEPS, drawn, same_bits, spread, verify_step
from ntm_tasks import Float32
from service.spec import ModelSpec, is_name


def export_module(
    module: nn.Module,
    x: Tensor,
    state: State = None,
    *,
    name: str = "",
    models: Path | str = "models",
    batch_axes: Mapping[str, int] | None = None,
    locations: Mapping[str, int] | None = None,
    read_heads: int | None = None,
    inputs: Tensor | None = None,
    task: str = "",
    replace: bool = False,
) -> Path:
    """
    Write a module as a model to serve, after comparing the two step by step. Return its folder.

    The module makes one step: `forward(x, state)` returns `(y, state)` or `(y, state, traces)`.
    All tensors are float32, y is [B, Y], and traces are [B, heads, width] by name. The folder is
    prepared beside its place, and there loaded and stepped as a server does it. Nothing of the
    module's Python is in it.

    Args:
        module: Also `torch.nn.LSTM`, `GRU`, `RNN`, `LSTMCell`, `GRUCell` or `RNNCell` as it is.
        x: An example of a step's input [B, X].
        state: An example of the state: a tensor, or tuples, lists and dictionaries of them. Its
            values are those that a session starts with, equal in all rows. PyTorch's own layers
            need none.
        name: The model's name, and that of its folder; the class in lower case by default.
        models: The folder of all models.
        batch_axes: The axis of the batch by state tensor, where the example's shapes do not tell.
        locations: The axis of the memory's locations by state tensor, for a memory whose size
            sessions choose. It needs the tensors `memory` and `weighting`.
        read_heads: How many heads of the weighting read, before those that write; all by default.
        inputs: Steps [T, X] to verify with; by default they are drawn from a normal distribution.
        task: The task that the spec names; by default the model's name.
        replace: Whether the folder may have held another network until now.

    Raises:
        ModuleRefused: the module cannot be served; the message says what to change, and where.
        FileExistsError: the folder holds another network.
        VerificationFailed: the graph differs from the module.
        ModelInvalid: a server could not serve the file. In all four cases nothing is written.
    """
    folder = Path(models) / (name or type(module).__name__.lower())
    if not is_name(folder.name):
        raise ModuleRefused(f"the name {name!r} is none of at most 128 printable characters")
    step, spec = _step_of(
        module, x, state, batch_axes or {}, locations or {}, read_heads, task or folder.name
    )
    rows = _checked_inputs(inputs, x)

    def fed(batch: int) -> Float32:
        return drawn(x.shape[1], batch) if rows is None else spread(rows, batch)

    def start(batch: int, count: int) -> list[Tensor]:
        return [*map(torch.from_numpy, comparison.initial_state(spec, batch, count).values())]

    def check(program: torch.export.ExportedProgram) -> None:
        checks.check_program(program, spec)
        checks.check_mates(step, program, spec, torch.from_numpy(fed(3)[:10]), start)

    checks.check_repeats(step, torch.from_numpy(fed(len(x))), start(len(x), spec.default_locations))
    checks.check_sizes(step, spec, torch.from_numpy(fed(1)), start, batch_axes or {})
    spec = _with_widths(step, spec, torch.from_numpy(fed(1)[0]), start)
    model = conversion.graph_of(step, spec, start, check)
    content = model.SerializeToString()
    if not replace:
        card.check_free(folder, content)
    verification.check_graph(model)
    comparisons = comparison.show(verify_step(content, step, fed))
    has_same_bits = same_bits(content, fed)
    if not has_same_bits:
        print("a row among others differs in its last bits from the same row among its copies")
    described = {
        "task": spec.task,
        "architecture": spec.architecture,
        "content_hash": card.content_hash(content),
        "parameters": sum(parameter.numel() for parameter in module.parameters()),
        "graph_nodes": len(model.graph.node),
        "module": f"{type(module).__module__}.{type(module).__qualname__}",
        "verification": {
            "against": "PyTorch",
            "inputs": "drawn" if rows is None else "given",
            "allowed_difference": comparison.LARGEST_DIFFERENCE,
            "comparisons": [each._asdict() for each in comparisons],
            "same_bits_in_batches": has_same_bits,
        },
        **card.made_with(),
    }
    rounding = max(comparison.output_rounding for comparison in comparisons)

    def rehearse(beside: Path) -> None:
        verification.rehearse(beside, folder.name, content, fed(1), rounding)

    card.write_files(folder, content, described, rehearse, replace=replace)
    return folder


def _step_of(
    module: nn.Module,
    x: Tensor,
    state: State,
    batch_axes: Mapping[str, int],
    locations: Mapping[str, int],
    read_heads: int | None,
    task: str,
) -> tuple[Step, ModelSpec]:
    """Check the example; return the module as a step, and its spec."""
    if not isinstance(module, nn.Module):
        raise ModuleRefused(f"what is to be exported is {module!r:.80}, not a torch.nn.Module")
    checks.check_x(x)
    architecture = type(module).__name__
    own, state, known = adapted(module, len(x), state)
    if state is None:
        raise ModuleRefused(
            f"there is no state for {architecture}, which is none of PyTorch's recurrent layers; "
            "give an example of what it keeps between steps, since a module without state need "
            "not be served in sessions"
        )
    tensors = {key: tensor.detach() for key, tensor in named(state).items()}
    checks.check_numbers(module, x, tensors)
    checks.check_mode(module)
    checks.check_leaves(module)
    own = deepcopy(own)
    axes = axes_of(tensors, len(x), {**known, **batch_axes}, locations)
    step = Step(own, state, axes)
    y, traces = checks.check_result(step, x, list(tensors.values()))
    step.traces = tuple(traces)
    for key in traces:
        check_name("trace", key)
    spec = spec_of(
        step, x, y, tensors, traces, task=task, architecture=architecture, read_heads=read_heads
    )
    return step, spec


def _with_widths(step: Step, spec: ModelSpec, x: Tensor, start: conversion.Start) -> ModelSpec:
    """Return the spec with the traces whose width is the number of locations."""
    if not spec.has_memory:
        return spec
    if spec.fixed_locations:
        return changed(
            spec,
            traces=tuple(
                changed(each, width="N") if each.width == spec.default_locations else each
                for each in spec.traces
            ),
        )
    with torch.no_grad():
        outputs = step(x, *start(1, spec.default_locations + 1))
    shown = outputs[len(outputs) - len(spec.traces) :]
    return changed(
        spec,
        traces=tuple(
            each if value.shape[-1] == each.width else changed(each, width="N")
            for each, value in zip(spec.traces, shown, strict=True)
        ),
    )


def _checked_inputs(inputs: Tensor | None, x: Tensor) -> Float32 | None:
    if inputs is None:
        return None
    if inputs.dim() != 2 or inputs.shape[1] != x.shape[1] or inputs.dtype != torch.float32:
        raise ModuleRefused(
            f"inputs has shape {list(inputs.shape)} and type {inputs.dtype}; it must be float32 "
            f"[T, {x.shape[1]}], a step in each row"
        )
    rows: Float32 = inputs.detach().numpy()
    return np.resize(rows, (max(len(rows), STEPS), rows.shape[1]))
