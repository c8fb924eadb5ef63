"""
Recordings as files: one .npz, which numpy opens without this library.

    archive = numpy.load("copy.npz", allow_pickle=False)
    facts = json.loads(archive["recording"].tobytes())

`recording` holds JSON text as UTF-8 in an array of bytes:

    format      1; a file of another format is refused
    model       the server's description of the model: name, content_hash (SHA-256 of the ONNX
                file), task, architecture, input_width, output_width, state and traces (lists of
                name and shape, name and heads and width; -1 stands for the locations), read_heads,
                write_heads, default_locations, fixed_locations, provider
    locations   memory locations of the session, N; 0 for a network without memory
    steps       the number of steps, T
    first_step  index in its session of the first of them; null without a memory
    size        what makes the task's sequence long, such as [10, 3]; null for a user's own inputs
    marks       steps that have a name: {"20": "delimiter"}

All other arrays are little-endian float32:

    inputs, outputs                    [T, width]
    trace.NAME                         [T, heads, width] for every trace of the model
    before.memory, after.memory        [N, M], before the first step and after the last; these and
    before.read_weightings and so on   [heads, N] where the network has a memory
    target, mask                       [T, output width] and [T], where the file has a size
    optimum                            [T, output width], in some tasks
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from io import BytesIO
from math import prod
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, get_type_hints
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
import numpy.typing as npt

from ntm_client.values import Float32, Memory, Model, StateTensor, TraceTensor
from ntm_lab.outputs import replacing
from ntm_lab.recordings.recording import Recording

T = TypeVar("T")

FORMAT = 1
FACTS = "recording"
STORED_AS = np.dtype("<f4")
MAX_FACTS = 1 << 20
"""The most bytes of JSON text. What `save` writes of a model has some thousands."""


class RecordingError(ValueError):
    """A file is not a recording, is damaged, or has a later format; the message says which."""


_NOT_IN_FILES = ("versions", "inputs", "outputs", "batched")
"""What recordings have not of `Model`, and what is the same in all of them."""


def save(recording: Recording, path: Path) -> None:
    """
    Write a recording into a file, which `load` reads back to the bit.

    Raises:
        OSError: the file cannot be written.
    """
    model = asdict(recording.model)
    for field in _NOT_IN_FILES:
        del model[field]
    model["state"] = [
        {"name": tensor.name, "shape": tensor.shape} for tensor in recording.model.state
    ]
    facts = {
        "format": FORMAT,
        "model": model,
        "locations": recording.locations,
        "steps": len(recording.inputs),
        "first_step": recording.before and recording.before.next_step,
        "size": recording.size,
        "marks": dict(recording.marks),
    }
    text = np.frombuffer(json.dumps(facts).encode(), np.uint8)
    arrays = {name: values.astype(STORED_AS) for name, values in _arrays(recording).items()}
    content = BytesIO()
    with ZipFile(content, "w", ZIP_DEFLATED) as archive:
        for name, array in ({FACTS: text} | arrays).items():
            with archive.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
    with replacing(path) as file:
        file.write(content.getvalue())


def load(path: Path) -> Recording:
    """
    Read what `save` wrote.

    Raises:
        RecordingError: the file holds something else.
        OSError: the file cannot be read.
    """
    content = BytesIO(path.read_bytes())
    try:
        with ZipFile(content) as archive:
            headers = {
                name.removesuffix(".npy"): _header(archive, name) for name in archive.namelist()
            }
        with np.lib.npyio.NpzFile(content, allow_pickle=False) as arrays:
            return _recording(arrays, headers)
    except RecordingError as error:
        raise RecordingError(f"{path} cannot be opened as a recording: {error}") from error
    except Exception as error:
        # Foreign and damaged bytes make zipfile, zlib, json and numpy raise nearly anything.
        raise RecordingError(f"{path} is no recording, or is damaged: {error}") from error


def _arrays(recording: Recording) -> dict[str, Float32]:
    found = {"inputs": recording.inputs, "outputs": recording.outputs}
    found |= {f"trace.{name}": values for name, values in recording.traces.items()}
    for when, memory in (("before", recording.before), ("after", recording.after)):
        if memory:
            found[f"{when}.memory"] = memory.memory
            found[f"{when}.read_weightings"] = memory.read_weightings
            found[f"{when}.write_weightings"] = memory.write_weightings
    asked = {"target": recording.target, "mask": recording.mask, "optimum": recording.optimum}
    return found | {name: values for name, values in asked.items() if values is not None}


def _recording(
    archive: Mapping[str, npt.NDArray[Any]], headers: Mapping[str, _Header]
) -> Recording:
    facts = _facts(archive, headers)
    model = _model(_fact(facts, "model", dict))
    if min(model.input_width, model.output_width) < 1:
        widths = f"{model.input_width} inputs and {model.output_width} outputs"
        raise RecordingError(f"its steps have {widths}, not one or more of each")
    locations, steps = _fact(facts, "locations", int), _fact(facts, "steps", int)
    size = None if facts.get("size") is None else _numbers(_fact(facts, "size", list))
    if steps < 1:
        raise RecordingError(f"it has {steps} steps")
    width = headers["before.memory"].shape[-1] if locations else 0
    shapes = _shapes(model, steps, locations, width)
    if size is not None:
        shapes |= {"target": (steps, model.output_width), "mask": (steps,)}
    if size is not None and "optimum" in headers:
        shapes["optimum"] = (steps, model.output_width)
    _check(headers, shapes)
    arrays = {name: archive[name] for name in shapes}
    for name, values in arrays.items():
        if not np.isfinite(values).all():
            raise RecordingError(f"{name} has a value that is not finite")
    mask = arrays.get("mask")
    if mask is not None and not (np.isin(mask, (0, 1)).all() and mask.any()):
        raise RecordingError("its mask is not 1 in the steps whose output counts, and else 0")
    first_step = _fact(facts, "first_step", int) if locations else 0
    return Recording(
        model,
        locations,
        arrays["inputs"],
        arrays["outputs"],
        {trace.name: arrays[f"trace.{trace.name}"] for trace in model.traces},
        before=_memory(arrays, "before", first_step) if locations else None,
        after=_memory(arrays, "after", first_step + steps) if locations else None,
        size=size,
        target=arrays.get("target"),
        mask=arrays.get("mask"),
        optimum=arrays.get("optimum"),
        marks=_marks(_fact(facts, "marks", dict), steps),
    )


class _Header(NamedTuple):
    """What the file says of an array before its values."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


def _header(archive: ZipFile, name: str) -> _Header:
    """Read an array's header alone: its values may be of any size once they are unpacked."""
    with archive.open(name) as member:
        version = np.lib.format.read_magic(member)
        read = np.lib.format.read_array_header_1_0
        if version != (1, 0):
            read = np.lib.format.read_array_header_2_0
        shape, _, dtype = read(member)
    return _Header(shape, dtype)


def _facts(
    archive: Mapping[str, npt.NDArray[Any]], headers: Mapping[str, _Header]
) -> dict[str, Any]:
    if FACTS not in headers:
        raise RecordingError(f"it has no array {FACTS!r}")
    if prod(headers[FACTS].shape) * headers[FACTS].dtype.itemsize > MAX_FACTS:
        raise RecordingError(f"{FACTS!r} has more than {MAX_FACTS} bytes")
    facts = json.loads(archive[FACTS].tobytes())
    if not isinstance(facts, dict) or type(facts.get("format")) is not int:
        raise RecordingError(f"{FACTS!r} names no format")
    if facts["format"] != FORMAT:
        raise RecordingError(
            f"it has format {facts['format']}, and this version reads {FORMAT}; use the version "
            f"that wrote it, or a later one"
        )
    return facts


def _shapes(model: Model, steps: int, locations: int, width: int) -> dict[str, tuple[int, ...]]:
    """The shape of every array that a recording of this model has, with or without a task."""
    shapes: dict[str, tuple[int, ...]] = {
        "inputs": (steps, model.input_width),
        "outputs": (steps, model.output_width),
    }
    for trace in model.traces:
        shapes[f"trace.{trace.name}"] = (steps, trace.heads, trace.width_at(locations))
    for when in ("before", "after") if locations else ():
        shapes[f"{when}.memory"] = (locations, width)
        shapes[f"{when}.read_weightings"] = (model.read_heads, locations)
        shapes[f"{when}.write_weightings"] = (model.write_heads, locations)
    return shapes


def _check(headers: Mapping[str, _Header], shapes: Mapping[str, tuple[int, ...]]) -> None:
    if odd := sorted(headers.keys() ^ {*shapes, FACTS}):
        raise RecordingError(f"it lacks, or should not have, {', '.join(odd)}")
    for name, shape in shapes.items():
        if headers[name] != (shape, STORED_AS):
            found = f"{headers[name].dtype} of shape {list(headers[name].shape)}"
            raise RecordingError(f"{name} is {found}, not float32 of shape {list(shape)}")


def _memory(arrays: Mapping[str, npt.NDArray[Any]], when: str, next_step: int) -> Memory:
    names = ("memory", "read_weightings", "write_weightings")
    return Memory(next_step, *(arrays[f"{when}.{name}"] for name in names))


def _marks(facts: Mapping[str, Any], steps: int) -> dict[int, str]:
    known = {str(step): step for step in range(steps)}
    words = (type(word) is str and word.isprintable() for word in facts.values())
    if not (facts.keys() <= known.keys() and all(words)):
        raise RecordingError(f"marks are not words of some of {steps} steps: {facts!r:.200}")
    return {known[step]: word for step, word in facts.items()}


def _model(facts: dict[str, Any]) -> Model:
    state = [
        StateTensor(_fact(tensor, "name", str), _numbers(_fact(tensor, "shape", list)))
        for tensor in _fact(facts, "state", list)
    ]
    traces = [_decoded(TraceTensor, trace) for trace in _fact(facts, "traces", list)]
    parts: dict[str, object] = dict.fromkeys(_NOT_IN_FILES, ())
    parts |= {"batched": True, "state": tuple(state), "traces": tuple(traces)}
    return _decoded(Model, facts | parts)


def _numbers(facts: list[Any]) -> tuple[int, ...]:
    if not all(type(number) is int for number in facts):
        raise RecordingError(f"{facts!r:.200} are not whole numbers")
    return tuple(facts)


def _decoded(kind: type[T], facts: Any) -> T:
    """Make a record of a class from its fields. Raises RecordingError if a type is wrong."""
    hints = get_type_hints(kind)
    if not isinstance(facts, dict) or facts.keys() != hints.keys():
        raise RecordingError(f"{kind.__name__} should have {', '.join(hints)}, not {facts!r:.200}")
    for name, hint in hints.items():
        if hint in (str, int, bool):
            _fact(facts, name, hint)
    return kind(**facts)


def _fact(facts: Mapping[str, Any], name: str, kind: type[T]) -> T:
    value = facts.get(name)
    if type(value) is not kind:
        raise RecordingError(f"{name} is {value!r:.200}, not of type {kind.__name__}")
    if isinstance(value, str) and not value.isprintable():
        raise RecordingError(f"{name} is {value!r:.200}, which has characters that are not printed")
    return value
