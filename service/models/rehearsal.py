"""
A rehearsal of a model before it is served: its folder is read, its network loaded and stepped, all
by the code of a server.

It is the one door through which another program, such as the exporter, can try a model.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np

from service.errors import ModelInvalid
from service.models.folder import ModelFile, ModelFolder
from service.models.loading import load, refusals
from service.models.runtime import Network
from service.models.slab import Slab
from service.spec import LOCATIONS, Array, TraceTensor


def rehearse(
    folder: Path, model: str, inputs: Array, given: Mapping[str, Array] = MappingProxyType({})
) -> dict[int, Array]:
    """
    Load a model from a folder of models, on the CPU, and make the steps of a sequence.

    The first half of the steps is made one by one, with all traces; the second half without, as
    many in one run as a server makes.

    Args:
        folder: It holds one folder for each model.
        model: Name of the model.
        inputs: [T] of `ModelSpec.input_record`, [T, X] for a model that takes one vector.
        given: The values of state tensors that a client gives.

    Returns:
        The outputs, [T] of `ModelSpec.output_record`, by the number of locations: the model's own,
        and one more, if a session can choose it.

    Raises:
        ModelInvalid: a server cannot read, load or step the model; the message says why.
        OSError: the folder cannot be read.
    """
    found = [
        change.found
        for change in ModelFolder(folder, (model,)).look()
        if change.place.is_current and change.found is not None
    ]
    if not found:
        raise ModelInvalid(f"{folder} has no model {model!r}")
    (file,) = found
    if not isinstance(file, ModelFile):
        raise file
    network = load(file.content, "cpu")
    spec = network.spec
    counts = [spec.default_locations]
    if spec.has_memory and not spec.fixed_locations:
        counts.append(spec.default_locations + 1)
    with refusals():
        return {count: _outputs(network, inputs, given, count) for count in counts}


def _outputs(network: Network, inputs: Array, given: Mapping[str, Array], locations: int) -> Array:
    """Make all steps in a slot of a new slab; return the outputs."""
    traces = {trace.name: trace for trace in network.spec.traces}
    slab = Slab(network, locations)
    slot = slab.acquire()
    slab.reset(slot, given)
    outputs = []
    at = 0
    while at < len(inputs):
        is_traced = 2 * at < len(inputs)
        ticks = 1 if is_traced else max(n for n in network.bursts if n <= len(inputs) - at)
        names = frozenset(trace.output for trace in traces.values()) if is_traced else frozenset()
        bound = slab.bind(1, names, ticks)
        bound.seat([slot])
        bound.inputs[:] = inputs[at : at + ticks, None]
        bound.run()
        outputs.append(bound.output[:, 0].copy())
        for trace in traces.values() if is_traced else ():
            _check_trace(trace, bound.traces[trace.output].shape[2:], locations)
        at += ticks
    return np.concatenate(outputs)


def _check_trace(trace: TraceTensor, shape: tuple[int, ...], locations: int) -> None:
    """Raise ModelInvalid if a trace is not of the heads and the width that the spec says."""
    heads, width = shape
    expected = locations if trace.width == LOCATIONS else trace.width
    if width != expected or heads < trace.first_head + trace.heads:
        raise ModelInvalid(
            f"trace {trace.name!r} has {heads} heads of width {width}; the spec says heads up to "
            f"{trace.first_head + trace.heads} of width {trace.width}"
        )
