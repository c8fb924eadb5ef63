"""An architecture of your own is tried before it is trained: its states, a step, its conversion."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from export import to_onnx, verification
from export.architectures import ARCHITECTURES
from export.comparison import LARGEST_DIFFERENCE
from export.configuration import Configuration
from export.modules.refusal import place_of_error, what_failed
from export.network import Architecture, ArchitectureError, Network, State, begin, next_name
from service.spec import LOCATIONS, Initial

BATCH = 3
"""The number of sequences in a trial step. A state that has lost its batch has another size."""


def try_out(configuration: Configuration) -> None:
    """
    Make a step with the network of a configuration, and convert it, before a training begins.

    Raises:
        ArchitectureError: it breaks the contract of `export.network`, or cannot be converted.
    """
    architecture = ARCHITECTURES[configuration.architecture]
    trial = _Trial(architecture, configuration)
    with trial.blaming("build"):
        network = architecture.build(configuration.sizes, 1)
    if not isinstance(network, Network):
        raise trial.error(f"build returns {_kind(network)}; it must return a Network")
    if not list(network.parameters()):
        raise trial.error("its network has no parameters, so that there is nothing to train")
    state = trial.state_of(network)
    trial.check_locations(network, state)
    trial.check_starts(network, state)
    trial.check_step(network, state)
    trial.check_conversion(network)
    trial.check_rows(network, state)


def try_on(configuration: Configuration, device: torch.device) -> None:
    """
    Make a step with the network of a configuration on a device.

    Raises:
        ArchitectureError: it fails there, such as by tensors that it makes on the CPU.
    """
    architecture = ARCHITECTURES[configuration.architecture]
    network = architecture.build(configuration.sizes, 1).to(device)
    x = torch.ones(BATCH, configuration.sizes.input_width, device=device)
    with _Trial(architecture, configuration).blaming(f"a step on {device}"), torch.no_grad():
        network(x, begin(network, BATCH, configuration.default_locations))


class _Trial:
    """The checks of one architecture, and how their errors name it."""

    def __init__(self, architecture: Architecture, configuration: Configuration) -> None:
        self._architecture = architecture
        self._configuration = configuration
        self._locations = configuration.default_locations

    def error(self, problem: str) -> ArchitectureError:
        """Return the error that says what is wrong with the architecture."""
        return ArchitectureError(f"{self._architecture.source}: {problem}")

    @contextmanager
    def blaming(self, what: str) -> Iterator[None]:
        """Say of an error in the user's code what failed, and in which line."""
        try:
            yield
        except ArchitectureError:
            raise
        except Exception as error:  # the user's own code can raise anything
            place = place_of_error(error)
            where = f" ({place})" if place else ""
            raise self.error(
                f"{what} fails: {type(error).__name__}: {what_failed(error)}{where}"
            ) from error

    def state_of(self, network: Network, locations: int | None = None) -> State:
        """Return the state before the first step, if it is one."""
        with self.blaming("initial_state"):
            state = network.initial_state(
                BATCH, self._locations if locations is None else locations
            )
        self._check_state(state, "initial_state returns")
        return state

    def _check_state(self, state: object, what: str) -> None:
        fields: tuple[str, ...] = getattr(state, "_fields", ())
        if not isinstance(state, tuple) or not fields:
            raise self.error(f"{what} {_kind(state)}; it must be a NamedTuple of tensors")
        for name, value in zip(fields, state, strict=True):
            self._check_tensor(name, value, what)

    def _check_tensor(self, name: str, value: object, what: str) -> None:
        if not isinstance(value, Tensor) or value.dtype != torch.float32:
            raise self.error(f"{what} {name} as {_kind(value)}; it must be a tensor of float32")
        if value.dim() < 2 or len(value) != BATCH:
            raise self.error(
                f"{what} {name} of shape {_shape(value)} for {BATCH} sequences; its first axis "
                f"must be these, and another must follow"
            )

    def check_locations(self, network: Network, state: State) -> None:
        """Check that exactly the tensors and axes of `over_locations` span the locations."""
        over = self._architecture.over_locations
        for name in over:
            if name not in state._fields:
                raise self.error(
                    f"over_locations names {name!r}; the state has {', '.join(state._fields)}"
                )
        if over and not {"memory", "weighting"} <= set(over):
            raise self.error(
                f"over_locations names {', '.join(over)}; a network with memory has the state "
                "tensors memory and weighting, and names them there"
            )
        free = self._architecture.has_memory and not self._configuration.has_learned_memory
        more = self._locations + 1 if free else self._locations
        for name, here, there in zip(
            state._fields, state, self.state_of(network, more), strict=True
        ):
            count = over.get(name, 0)
            first = here.dim() - count
            wanted = (*here.shape[:first], *(self._locations,) * count)
            if first < 1 or here.shape != wanted:
                raise self.error(
                    f"state {name} has shape {_shape(here)} at {self._locations} locations; by "
                    f"over_locations its last {count} must be {self._locations}"
                )
            if there.shape != (*here.shape[:first], *(more,) * count):
                raise self.error(
                    f"state {name} has shape {_shape(here)} at {self._locations} locations and "
                    f"{_shape(there)} at {more}; over_locations must say how many of its last axes "
                    "are the locations"
                )

    def check_starts(self, network: Network, state: State) -> None:
        """Check that `starts` describes the initial state."""
        with self.blaming("starts"):
            starts = dict(network.starts())
        parameters = dict(network.named_parameters())
        for name, start in starts.items():
            if name not in state._fields:
                raise self.error(
                    f"starts() names {name!r}; the state has {', '.join(state._fields)}"
                )
            if not isinstance(start, Initial) and start not in parameters:
                raise self.error(
                    f"starts() says that {name} starts from {start!r}; the network has no such "
                    f"parameter, but {', '.join(parameters)}"
                )
            self._check_start(name, start, parameters, getattr(state, name))
        for name in self._architecture.over_locations:
            learned = self._configuration.has_learned_memory
            if name not in starts and not learned:
                raise self.error(
                    f"state {name} spans the locations, so that starts() must have its rule, such "
                    'as Initial("constant", (0.0,))'
                )

    def _check_start(
        self, name: str, start: Initial | str, parameters: Mapping[str, Tensor], value: Tensor
    ) -> None:
        if isinstance(start, Initial):
            with self.blaming(f"the start of {name}"):
                wanted = torch.from_numpy(start.value(tuple(value.shape[1:])))
        else:
            wanted = parameters[start].detach()
        if wanted.shape != value.shape[1:] or not torch.equal(
            wanted.expand_as(value), value.detach()
        ):
            raise self.error(
                f"starts() says that {name} starts from {start}, of shape {_shape(wanted)}; "
                f"initial_state returns other values, of shape {_shape(value)} for {BATCH} "
                "sequences"
            )

    def check_step(self, network: Network, state: State) -> None:
        """Check that a step is a pure function with results of the promised shapes."""
        sizes = self._configuration.sizes
        x = torch.ones(BATCH, sizes.input_width)
        begun = type(state)._make(value.detach().clone().requires_grad_() for value in state)
        with self.blaming("forward"):
            given = network(x, begun)
        if not isinstance(given, tuple) or len(given) != 3:
            raise self.error(
                f"forward returns {_kind(given)}; it must return logits, the next state, and the "
                "trace or None"
            )
        logits, after, trace = given
        if not isinstance(logits, Tensor) or logits.shape != (BATCH, sizes.output_width):
            raise self.error(
                f"forward returns logits of {_kind(logits)}; for {BATCH} sequences they must be a "
                f"tensor of shape {[BATCH, sizes.output_width]}"
            )
        self._check_state(after, "forward returns")
        if type(after) is not type(state):
            raise self.error(
                f"forward returns a {type(after).__name__} as the next state; initial_state "
                f"returns a {type(state).__name__}"
            )
        for name, before, value in zip(state._fields, begun, after, strict=True):
            if value.shape != before.shape:
                raise self.error(
                    f"forward returns {name} of shape {_shape(value)}; initial_state returns it of "
                    f"shape {_shape(before)}"
                )
            self._check_dependence(name, value, before)
        if not all(map(torch.equal, begun, state)):
            raise self.error("forward changes the state that it is given; it must return a new one")
        with self.blaming("forward"), torch.no_grad():
            again, *_ = network(x, begun)
        if not torch.equal(again, logits):
            raise self.error(
                "forward returns other logits for the same input and state; it must keep all in "
                "the state, and draw nothing at random"
            )
        self._check_trace(state, trace)

    def check_rows(self, network: Network, state: State) -> None:
        """Check that what a sequence gets does not depend on the others of its batch."""
        generator = torch.Generator().manual_seed(1)
        x = torch.rand(BATCH, self._configuration.sizes.input_width, generator=generator)
        among_others = torch.cat((x[:1], 1 - x[1:]))
        states = [state, state]
        for _ in range(2):  # in the second step the states of the others differ too
            with self.blaming("forward"), torch.no_grad():
                made = [network(x, states[0]), network(among_others, states[1])]
            one, other = ((logits, *after, *(trace or ())) for logits, after, trace in made)
            if not all(
                torch.allclose(a[0], b[0], rtol=0, atol=LARGEST_DIFFERENCE)
                for a, b in zip(one, other, strict=True)
            ):
                raise self.error(
                    "what forward returns for one sequence depends on the others of its batch; "
                    "each row is a sequence of its own, so compute nothing over the first axis"
                )
            states = [after for _, after, _ in made]

    def _check_dependence(self, name: str, after: Tensor, before: Tensor) -> None:
        found: Sequence[Tensor | None] = (None,)
        if after.requires_grad:
            found = torch.autograd.grad(after.sum(), before, retain_graph=True, allow_unused=True)
        if found[0] is None:
            raise self.error(
                f"the next {name} does not depend on the last {name}, which the server's update in "
                "place needs; compute it from that, or leave it out of the state"
            )

    def _check_trace(self, state: State, trace: object) -> None:
        with self.blaming("traces"):
            traces = tuple(self._architecture.traces(self._configuration.sizes))
        of_state = {next_name(name): getattr(state, name) for name in state._fields}
        named = list(dict.fromkeys(each.output for each in traces if each.output not in of_state))
        fields: tuple[str, ...] = getattr(trace, "_fields", ())
        if (trace is not None and not fields) or named != list(fields):
            raise self.error(
                f"traces() names {', '.join(named) or 'no outputs'} beside the state; the trace "
                f"that forward returns must be a NamedTuple of these in their order, or None, and "
                f"has {', '.join(fields) or 'none'}"
            )
        values = of_state | {name: getattr(trace, name) for name in fields}
        for each in traces:
            value = values[each.output]
            self._check_tensor(each.output, value, "forward returns")
            width = self._locations if each.width == LOCATIONS else each.width
            heads = each.first_head + each.heads
            if value.dim() != 3 or value.shape[1] < heads or value.shape[2] != width:
                raise self.error(
                    f"forward returns {each.output} of shape {_shape(value)}; for the trace "
                    f"{each.name} it must be {BATCH} sequences, at least {heads} heads, width "
                    f"{width}"
                )

    def check_conversion(self, network: Network) -> None:
        """Convert the network, since a training is long and an error at its end late."""
        with self.blaming("the conversion to ONNX"):
            spec = to_onnx.spec_of(network, self._configuration)
            try:
                model = to_onnx.convert(network, spec)
            except torch.onnx.OnnxExporterError as error:
                if "data-dependent" not in str(error):
                    raise
                raise self.error(
                    "what forward does depends on values, and a graph does the same for all; "
                    f"compute both and choose with torch.where ({place_of_error(error)})"
                ) from error
            verification.check_graph(model)


def _kind(value: object) -> str:
    """Return what a value is, for errors."""
    if isinstance(value, Tensor):
        return f"a tensor of {str(value.dtype).removeprefix('torch.')} and shape {_shape(value)}"
    return "None" if value is None else f"a {type(value).__name__}"


def _shape(value: Tensor) -> list[int]:
    return list(value.shape)
