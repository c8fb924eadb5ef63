"""Write a served model into a model repository of Triton, after running what was written."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
from google.protobuf.message import DecodeError

from export.comparison import VerificationFailed
from export.plain_session import plain_session
from export.triton.configuration import INITIAL_STATE, configuration
from export.triton.graph import Carried, TritonModel, TritonRefuses, triton_model
from export.triton.page import page
from service.errors import ModelInvalid
from service.spec import METADATA_KEY, TYPES, Array, ModelSpec

MODEL_FILE = "model.onnx"
VERSION = "1"

FEWEST_LOCATIONS = 3
"""As the server has it: fewer are no memory for the shifts -1, 0 and +1."""

STEPS = 20
"""How many steps are compared."""

ROWS = 3
"""How many sequences are stepped together, if Triton may do so."""

TOLERANCES = {"float32": 1e-5, "float16": 1e-2}
"""The largest difference of an element, relative beyond 1; other types have none."""


def write_repository(
    model: Path, into: Path, name: str, locations: int | None, *, replace: bool
) -> Path:
    """
    Write a model's folder for Triton, and compare what was written with the model, step by step.

    Args:
        model: The file of a served model.
        into: The model repository; it is made if it is not there.
        name: The model's name in Triton, and its folder's in the repository.
        locations: Of every sequence; None for the model's default.
        replace: Whether a folder of that name may be there already.

    Returns:
        The folder: `config.pbtxt`, `1/model.onnx`, `initial_state/` and a README.

    Raises:
        ModelInvalid: the file is no model with a spec, or onnxruntime cannot step it.
        ValueError: the model does not work with these locations.
        TritonRefuses: Triton could not carry its state.
        VerificationFailed: what was written computes other values.
        FileExistsError: the folder is there. In all five cases nothing is written.
    """
    proto, spec = _read(model)
    written = triton_model(proto, spec, _locations(spec, locations))
    folder = into / name
    if folder.exists() and not replace:
        raise FileExistsError(
            f"{folder} is there already; give this one another name with --name, or --replace it"
        )
    into.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{name}.", dir=into) as beside:
        prepared = Path(beside) / name
        (prepared / VERSION).mkdir(parents=True)
        (prepared / INITIAL_STATE).mkdir()
        (prepared / VERSION / MODEL_FILE).write_bytes(written.proto.SerializeToString())
        for carried in written.state:
            (prepared / INITIAL_STATE / carried.file).write_bytes(carried.initial.tobytes())
        (prepared / "config.pbtxt").write_text(configuration(name, written), "utf-8")
        (prepared / "README.md").write_text(page(name, written), "utf-8")
        _compare(prepared, written, proto)
        if folder.exists():
            shutil.rmtree(folder)
        prepared.rename(folder)
    return folder


def _read(path: Path) -> tuple[onnx.ModelProto, ModelSpec]:
    try:
        proto = onnx.load_model_from_string(path.read_bytes())
    except DecodeError as error:
        raise ModelInvalid(f"{path} is not an ONNX file") from error
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    if METADATA_KEY not in metadata:
        raise ModelInvalid(
            f"{path} has no spec, {METADATA_KEY!r} in its metadata; name the folder of a model "
            "that the server serves"
        )
    try:
        return proto, ModelSpec.from_json(metadata[METADATA_KEY])
    except ModelInvalid as error:
        raise ModelInvalid(f"{path}: {error.message}") from error


def _locations(spec: ModelSpec, asked: int | None) -> int:
    if asked is None or asked == spec.default_locations:
        return spec.default_locations
    if not spec.has_memory:
        raise ValueError(f"--locations is {asked}, but this model has no memory; leave it out")
    if spec.fixed_locations:
        raise ValueError(
            f"--locations is {asked}; the model's initial memory was learned for "
            f"{spec.default_locations}, so it works with those only"
        )
    if asked < FEWEST_LOCATIONS:
        raise ValueError(f"--locations is {asked}; it must be at least {FEWEST_LOCATIONS}")
    return asked


def _compare(prepared: Path, model: TritonModel, source: onnx.ModelProto) -> None:
    """
    Step the written files as Triton does, and the model's own graph from the same states.

    Raises:
        ModelInvalid: onnxruntime cannot load or step one of the graphs.
        VerificationFailed: they compute different values.
        TritonRefuses: a state has another type or shape after a step, or rows are no sequences.
    """
    written = _Stepped((prepared / VERSION / MODEL_FILE).read_bytes())
    original = _Stepped(source.SerializeToString())
    names = [*(port.name for port in model.outputs), *(each.output for each in model.state)]
    theirs = [each.name for each in model.spec.outputs]
    theirs += [each.output or each.input for each in model.spec.state]
    lead = (ROWS,) if model.batched else ()
    state = [
        np.broadcast_to(_initial(prepared, carried), (*lead, *carried.input.shape))
        for carried in model.state
    ]
    generator = np.random.default_rng(0)
    for _ in range(STEPS):
        drawn = [
            generator.integers(0, 2, (*lead, *port.shape)).astype(TYPES[port.type])
            for port in model.inputs
        ]
        feeds = dict(zip(_read_by(model), [*drawn, *state], strict=True))
        found = written.step(names, feeds)
        expected = original.step(theirs, _shaped(model, [*drawn, *state]))
        for name, one, other in zip(names, found, expected, strict=True):
            if not _agree(one, other):
                raise VerificationFailed(
                    f"{name!r} of the graph for Triton differs from the model's own after a step"
                )
        if model.batched:
            alone = written.step(names, {name: value[:1] for name, value in feeds.items()})
            for name, one, other in zip(names, found, alone, strict=True):
                if not _agree(one[:1], other):
                    raise TritonRefuses(
                        f"{name!r} of a row depends on the other rows of its batch; Triton would "
                        "step sequences together, and each would change the others"
                    )
        after = found[len(model.outputs) :]
        for carried, old, new in zip(model.state, state, after, strict=True):
            _check_constant(carried.name, old, new)
        state = after


def _initial(prepared: Path, carried: Carried) -> Array:
    content = (prepared / INITIAL_STATE / carried.file).read_bytes()
    return np.frombuffer(content, TYPES[carried.input.type]).reshape(carried.input.shape)


def _read_by(model: TritonModel) -> list[str]:
    return [*(port.name for port in model.inputs), *(each.input.name for each in model.state)]


def _shaped(model: TritonModel, values: Sequence[Array]) -> dict[str, Array]:
    """The values that a step reads, as the model's own graph has them."""
    spec, rows = model.spec, ROWS if model.batched else 1
    shapes = {each.name: each.shape for each in spec.inputs}
    shapes |= {each.input: each.shape_at(model.locations) for each in spec.state}
    return {
        name: value.reshape(rows, *shape)
        for (name, shape), value in zip(shapes.items(), values, strict=True)
    }


def _agree(found: Array, expected: Array) -> bool:
    tolerance = TOLERANCES.get(found.dtype.name, 0)
    return found.size == expected.size and np.allclose(  # Triton's may have one axis more
        found.ravel(), expected.ravel(), rtol=tolerance, atol=tolerance, equal_nan=True
    )


def _check_constant(name: str, before: Array, after: Array) -> None:
    if (before.shape, before.dtype) != (after.shape, after.dtype):
        raise TritonRefuses(
            f"the state {name!r} goes into a step as {before.dtype} {list(before.shape)} and comes "
            f"out as {after.dtype} {list(after.shape)}; Triton would go on with bytes of another "
            "meaning"
        )


class _Stepped:
    """A graph on onnxruntime."""

    def __init__(self, content: bytes) -> None:
        try:
            self._session = plain_session(content)
        except Exception as error:  # onnxruntime's errors share no other base class
            raise ModelInvalid(f"onnxruntime cannot load the model: {error}") from error
        self._reads = {each.name for each in self._session.get_inputs()}

    def step(self, names: Sequence[str], feeds: Mapping[str, Array]) -> list[Array]:
        """Make one step; return the values of these names, which may be inputs as well."""
        outputs = [name for name in names if name not in feeds]
        try:
            found = self._session.run(outputs, {**feeds})
        except Exception as error:  # onnxruntime's errors share no other base class
            raise ModelInvalid(f"onnxruntime cannot step the model: {error}") from error
        values = {**feeds, **dict(zip(outputs, found, strict=True))}
        return [values[name] for name in names]
