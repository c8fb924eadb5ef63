"""What a module must be before it is served, each with the line to change where it is not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd

from export.comparison import LARGEST_DIFFERENCE
from export.modules.refusal import (
    ModuleRefused,
    place_of_attribute,
    place_of_error,
    place_of_node,
    place_of_step,
    what_failed,
)
from export.modules.step import Step, called, parts
from service.spec import LOCATIONS, ModelSpec

BATCHES = (1, 2, 7)
"""Batches of every comparison."""

_EVAL = "call .eval() on the module before you export it"


def check_x(x: object) -> None:
    """Raise ModuleRefused for an example input that is not [B, X]."""
    if not isinstance(x, Tensor) or x.dim() != 2 or 0 in x.shape:
        what = f"of shape {list(x.shape)}" if isinstance(x, Tensor) else f"{type(x).__name__}"
        raise ModuleRefused(
            f"the example's x is {what}; it must be a tensor [B, X], one step of B sessions"
        )


def check_numbers(module: nn.Module, x: Tensor, state: Mapping[str, Tensor]) -> None:
    """Raise ModuleRefused without a state, and for numbers that are not finite float32 on a CPU."""
    if not state:
        raise ModuleRefused("the example has no state; there is nothing to keep between steps")
    for name, tensor in (("x", x), *((called(name), each) for name, each in state.items())):
        if tensor.dtype != torch.float32:
            raise ModuleRefused(
                f"the example's {name} is {_kind(tensor)}; models have float32 alone, so make it "
                "float32 and convert it in forward"
            )
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            raise ModuleRefused(
                f"{name} of the module is {_kind(tensor)}; call .float() on the module"
            )
        if tensor.device.type != "cpu":
            raise ModuleRefused(
                f"{name} of the module is on {tensor.device}; call .cpu() on the module"
            )
    for name, parameter in module.named_parameters():
        if not parameter.isfinite().all():
            raise ModuleRefused(
                f"{name} of the module has values that are infinite or NaN; its training diverged, "
                "so take the weights of before"
            )


def check_mode(module: nn.Module) -> None:
    """Raise ModuleRefused for a part that behaves as in training."""
    for name, part in module.named_modules():
        drops = isinstance(part, _DropoutNd) and part.p > 0
        drops |= isinstance(part, nn.RNNBase) and part.dropout > 0
        normalises = isinstance(part, _NormBase) and part.track_running_stats
        if part.training and (drops or normalises):
            what = f"{name or 'the module'} ({type(part).__name__})"
            raise ModuleRefused(f"{what} is in train mode; {_EVAL}", place_of_step(module))


def check_leaves(module: nn.Module) -> None:
    """Raise ModuleRefused for an attribute that a step of training computed; it has no copy."""
    for name, part in module.named_modules():
        for attribute, value in vars(part).items():
            if isinstance(value, Tensor) and not value.is_leaf:
                raise ModuleRefused(
                    f"{_attribute(name, attribute)} is a tensor that a step computed. If it is "
                    "state, take it in as a part of the state, and return it; if not, set it to "
                    "None before you export the module",
                    place_of_attribute(part, attribute),
                )


def check_result(
    step: Step, x: Tensor, state: Sequence[Tensor]
) -> tuple[Tensor, dict[str, Tensor]]:
    """
    Make a step of the example; return the output and the traces.

    Raises:
        ModuleRefused: the step fails, or what it returns is none of the shapes that can be served.
    """
    module = step.module
    place = place_of_step(module)
    with torch.no_grad(), tried("a step of the example fails"):
        y, _, traces = parts(module, x.clone(), step.state_of([tensor.clone() for tensor in state]))
    if y.dim() != 2 or y.shape[0] != x.shape[0] or not y.shape[1]:
        raise ModuleRefused(
            f"the output has shape {list(y.shape)}; it must be [B, Y], here [{x.shape[0]}, Y]",
            place,
        )
    for name, trace in traces.items():
        if trace.dim() not in (2, 3) or trace.shape[0] != x.shape[0] or 0 in trace.shape:
            raise ModuleRefused(
                f"the trace {name} has shape {list(trace.shape)}; it must be [B, heads, width], "
                "or [B, width] of one head",
                place,
            )
    for name, tensor in (("the output", y), *((f"the trace {n}", t) for n, t in traces.items())):
        if tensor.dtype != torch.float32:
            raise ModuleRefused(f"{name} is {_kind(tensor)}; return it as float32", place)
    return y, traces


def check_repeats(step: Step, inputs: Tensor, state: Sequence[Tensor]) -> None:
    """
    Make a sequence twice from the same state; `inputs` is [T, B, X].

    Raises:
        ModuleRefused: the outputs differ, or an attribute of the module does, so that the module
            keeps state on itself. Or values become infinite or NaN.
    """
    tried_out = deepcopy(step)
    before = _held(tried_out.module)
    chains = []
    for _ in range(2):
        # The graph shows where PyTorch draws random numbers; what is left is of other kinds.
        with torch.random.fork_rng():
            torch.manual_seed(0)
            first, state_then = _chain(tried_out, inputs[:1], state)
            held_then = _held(tried_out.module)
            others, _ = _chain(tried_out, inputs[1:], state_then)
        chains.append(([*first, *others], held_then, _held(tried_out.module)))
    (outputs, held_then, held), (outputs_again, held_then_again, held_again) = chains
    repeats = len(outputs) == len(outputs_again) and all(map(torch.equal, outputs, outputs_again))
    pairs = [(held_then, held_then_again), (held, held_again)]
    # One that each step overwrites is state only if a step reads it.
    pairs += [] if repeats else [(before, held)]
    for one, other in pairs:
        for (name, attribute), value in other.items():
            if (name, attribute) not in one or not _same(one[name, attribute], value):
                raise ModuleRefused(
                    f"the module keeps state in {_attribute(name, attribute)}, which all "
                    "sessions would share; take it in as a part of the state, and return it",
                    place_of_attribute(tried_out.module.get_submodule(name), attribute),
                )
    if not repeats:
        raise ModuleRefused(
            "the same steps give other outputs the second time; a step must depend on x and state "
            "alone, not on random numbers or on what other code changes",
            place_of_step(step.module),
        )


def _chain(
    step: Step, inputs: Tensor, state: Sequence[Tensor]
) -> tuple[list[Tensor], Sequence[Tensor]]:
    """
    Make steps in PyTorch until a state changes its shape; return the outputs and the last state.
    """
    outputs = []
    shapes = [tensor.shape for tensor in state]
    with torch.no_grad(), tried("a step fails"):
        for at, x in enumerate(inputs, 1):
            if [tensor.shape for tensor in state] != shapes:
                break
            y, *rest = step(x, *state)
            outputs.append(y)
            state = rest[: len(shapes)]
            if not all(each.isfinite().all() for each in (y, *state)):
                raise ModuleRefused(
                    f"values are infinite or NaN after {at} steps, and a server closes such "
                    "sessions; if the inputs, drawn from a normal distribution, are unlike yours, "
                    "give inputs to verify with",
                    place_of_step(step.module),
                )
    return outputs, state


def check_sizes(
    step: Step,
    spec: ModelSpec,
    inputs: Tensor,
    start: Callable[[int, int], list[Tensor]],
    told: Mapping[str, int],
) -> None:
    """
    Raise ModuleRefused if a step fails at another batch or another number of locations.

    `told` has the axes of the batch that the user named, by state tensor.
    """
    axes = " and ".join(f"axis {axis} of {called(name)}" for name, axis in told.items())
    along = f" along {axes}, as batch_axes says" if axes else ""
    default = spec.default_locations
    chosen = [default] if spec.fixed_locations or not default else [default, default + 1]
    for locations in chosen:
        for batch in BATCHES:
            size = f"batch of {batch}" + (f" at {locations} locations" if default else "") + along
            with torch.no_grad(), tried(f"a step fails for a {size}"):
                step(inputs[0, :1].repeat(batch, 1), *start(batch, locations))


def check_program(program: ExportedProgram, spec: ModelSpec) -> None:
    """
    Check the graph of a step.

    Raises:
        ModuleRefused: it draws random numbers, behaves as in training, has a size that depends on
            values, or a state that changes its size or type.
    """
    for node in program.graph.nodes:
        if node.op != "call_function":
            continue
        _check_operation(node)
        value = node.meta.get("val")
        for each in value if isinstance(value, list | tuple) else [value]:
            if isinstance(each, Tensor) and any(_is_unbacked(size) for size in each.shape):
                raise ModuleRefused(
                    "the size of a tensor depends on values; a step must have the same sizes "
                    "always, so use a mask or torch.where",
                    place_of_node(node),
                )
    output = next(node for node in program.graph.nodes if node.op == "output")
    inputs = [node for node in program.graph.nodes if node.op == "placeholder"]
    x, *state = inputs[-1 - len(spec.state) :]
    letters = {str(x.meta["val"].shape[0]): "B"}
    following = output.args[0][-1 - len(spec.state) - len(spec.traces) :][1:]
    for tensor, before, after in zip(spec.state, state, following, strict=False):
        here, there = before.meta["val"], after.meta["val"]
        if there.dtype != torch.float32:
            raise ModuleRefused(
                f"the next {tensor.name} is {_kind(there)}; return it as float32",
                place_of_node(after),
            )
        if LOCATIONS in tensor.shape:
            letters[str(here.shape[-1])] = LOCATIONS
        shapes = [[letters.get(str(n), str(n)) for n in each.shape] for each in (here, there)]
        if shapes[0] != shapes[1]:
            old, new = (f"[{', '.join(shape)}]" for shape in shapes)
            raise ModuleRefused(
                f"{called(tensor.name)} has shape {old} before a step and {new} after it; it must "
                "keep its shape, so a history needs a fixed number of places, of which the oldest "
                "is dropped",
                place_of_node(after),
            )


def check_mates(
    step: Step,
    program: ExportedProgram,
    spec: ModelSpec,
    inputs: Tensor,
    start: Callable[[int, int], list[Tensor]],
) -> None:
    """
    Raise ModuleRefused if the rows of a batch influence each other.

    A sequence is made alone, and in a batch with two kinds of others; `inputs` is [T, B, X].
    """
    module: Any = program.module()
    batch = inputs.shape[1]
    alone, among, others = (start(n, spec.default_locations) for n in (1, batch, batch))
    with torch.no_grad():
        for x in inputs:
            with_others = x.clone()
            with_others[1:] = 1 - 2 * x[1:].flip(0)
            results = [step(x[:1], *alone), step(x, *among), step(with_others, *others)]
            one, *several = [[value[:1] for value in result] for result in results]
            if any(_differ(a, b) for found in several for a, b in zip(one, found, strict=True)):
                place = _first_difference(module, [(x, *among), (with_others, *others)])
                raise ModuleRefused(
                    "the rows of a batch influence each other; each row is a session of another "
                    "caller, so compute nothing over the axis of the batch",
                    place or place_of_step(step.module),
                )
            count = len(spec.state)
            alone, among, others = (list(result[1 : 1 + count]) for result in results)


def _first_difference(module: Any, arguments: Sequence[tuple[Tensor, ...]]) -> str:
    """Return the place of the first operation whose first row differs between two batches."""
    found = [_Recording(module) for _ in arguments]
    for recording, each in zip(found, arguments, strict=True):
        recording.run(*each)
    first, second = (recording.values for recording in found)
    batches = {
        str(node.meta["val"].shape[0])
        for node in module.graph.nodes
        if node.op == "placeholder" and isinstance(node.meta.get("val"), Tensor)
    }
    for node in module.graph.nodes:
        fake = node.meta.get("val")
        if node.op != "call_function" or not isinstance(fake, Tensor):
            continue
        sizes = [str(size) for size in fake.shape]
        axis = next((at for at, size in enumerate(sizes) if size in batches), None)
        if axis is None and any(not isinstance(size, int) for size in fake.shape):
            continue  # rows and heads in one axis, say
        a, b = first[node.name], second[node.name]
        if axis is not None:
            a, b = a.select(axis, 0), b.select(axis, 0)
        if _differ(a, b):
            return place_of_node(node)
    return ""


class _Recording(fx.Interpreter):
    """Keeps the value of every operation."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module, garbage_collect_values=False)
        self.values: dict[str, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        self.values[n.name] = value = super().run_node(n)
        # A later operation may change it in place.
        self.values[n.name] = value.clone() if isinstance(value, Tensor) else value
        return value


@contextmanager
def tried(what: str) -> Iterator[None]:
    """Say of an error in somebody's code what was tried, and where it was raised."""
    try:
        yield
    except ModuleRefused:
        raise
    # A module may raise anything at all. Each means that it cannot be stepped.
    except Exception as error:
        raise ModuleRefused(
            f"{what}: {type(error).__name__}: {what_failed(error)}", place_of_error(error)
        ) from error


def _check_operation(node: fx.Node) -> None:
    """Raise ModuleRefused for an operation that is random, changes a buffer or is of training."""
    target: Any = node.target
    if not isinstance(target, torch._ops.OpOverload):
        return
    names = [argument.name for argument in target._schema.arguments]
    given: dict[str, Any] = dict(zip(names, node.args, strict=False)) | dict(node.kwargs)
    training = next((given[n] for n in ("train", "training") if n in given), None)
    rate = next((given[n] for n in ("dropout", "dropout_p", "p") if n in given), None)
    what = target._schema.name.removeprefix("aten::")
    if "norm" in what and training:
        raise ModuleRefused(f"{what} behaves as in training; {_EVAL}", place_of_node(node))
    if torch.Tag.nondeterministic_seeded in target.tags:
        # Layers and attention draw numbers only where they have a rate.
        if training is False or (rate == 0 and ("train" in names or "dropout_p" in names)):
            return
        if rate is not None and "dropout" in (*names, what, what.replace("native_", "")):
            raise ModuleRefused(f"{what} behaves as in training; {_EVAL}", place_of_node(node))
        raise ModuleRefused(
            f"{what} draws random numbers; a step must give the same answer each time, so take "
            "the numbers in as a part of x",
            place_of_node(node),
        )


def _attribute(part: str, attribute: str) -> str:
    """Write an attribute of a module, or of a module in it, as its own code does."""
    return ".".join(("self", *((part,) if part else ()), attribute))


def _held(module: nn.Module) -> dict[tuple[str, str], object]:
    """Return copies of what a module and its parts hold besides parameters, by part and name."""
    return {
        (name, attribute): _copied(value)
        for name, part in module.named_modules()
        for attribute, value in (*vars(part).items(), *part.named_buffers(recurse=False))
        if attribute not in _OF_PYTORCH
    }


_OF_PYTORCH = frozenset(vars(nn.Module()))
"""Attributes that PyTorch gives to every module."""


def _copied(value: object) -> object:
    """Return a copy of tensors and what holds them; other values are what they are."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, list | tuple | set | frozenset):
        return [_copied(each) for each in value]
    if isinstance(value, dict):
        return {key: _copied(each) for key, each in value.items()}
    return value


def _same(before: object, after: object) -> bool:
    """Whether two copies are equal. Objects of other kinds are taken for equal to themselves."""
    if isinstance(before, Tensor) and isinstance(after, Tensor):
        return before.shape == after.shape and bool(
            torch.isclose(before, after, 0, 0, equal_nan=True).all()
        )
    if isinstance(before, list) and isinstance(after, list):
        return len(before) == len(after) and all(map(_same, before, after))
    if isinstance(before, dict) and isinstance(after, dict):
        return before.keys() == after.keys() and all(_same(before[k], after[k]) for k in before)
    if isinstance(before, int | float | str | bytes | None):
        return before == after or repr(before) == repr(after) == "nan"
    return type(before) is type(after)


def _differ(a: Tensor, b: Tensor) -> bool:
    """Whether values differ by more than rounding, relative for values beyond 1."""
    if not a.is_floating_point():
        return not torch.equal(a, b)
    off = (a - b).abs() / a.abs().clamp(min=1)
    return not bool((off <= LARGEST_DIFFERENCE).all())


def _is_unbacked(size: object) -> bool:
    return (
        isinstance(size, torch.SymInt)
        and size.node.shape_env is not None
        and any(
            size.node.shape_env.is_unbacked_symint(symbol) for symbol in size.node.expr.free_symbols
        )
    )


def _kind(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
