"""Compiled code refuses arguments that do not fit, before it reads or writes beyond an array."""

from __future__ import annotations

import importlib
import math
import os
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from numba.core.dispatcher import Dispatcher

import export
from export import access
from export.access import HeadTape
from export.kernels import Array, Kernel

MODULES = {
    module.name: importlib.import_module(module.name)
    for module in pkgutil.walk_packages(export.__path__, "export.")
    if module.name != "export.__main__"
}

KERNELS = {
    value.name: value
    for module in MODULES.values()
    for value in vars(module).values()
    if isinstance(value, Kernel)
}
"""Every kernel of the trainer by name."""

B, C, T, M, N, H, R = 3, 5, 4, 7, 6, 3, 2
P = H * (M + access.SCALARS) + 2 * M * (H - R)


def filled(*shape: int) -> Array:
    """Numbers from 0.1 to 0.9, the same in every run."""
    return np.linspace(0.1, 0.9, math.prod(shape), dtype=np.float32).reshape(shape)


def tape() -> HeadTape:
    """A tape whose entries fit each other."""
    of_heads, parameters = (T, B, H, N), (T, B, P)
    return HeadTape(
        memory=filled(T + 1, B, M, N),
        weighting=filled(T + 1, B, H, N),
        similarity=filled(*of_heads),
        content=filled(*of_heads),
        shifted=filled(*of_heads),
        inverse_norm=filled(T, B, N),
        parameters=filled(*parameters),
        activations=filled(*parameters),
    )


def fitting(name: str) -> list[Any]:
    """Arguments that fit each kernel. One that is added to the trainer needs a line here."""
    cells = [filled(B, C) for _ in range(4)]
    of_a_step = [filled(B, M, N), filled(B, H, N), filled(B, P)]
    arguments: dict[str, list[Any]] = {
        "lstm_cell": [filled(B, 4 * C), *cells],
        "lstm_cell_back": [filled(B, 4 * C), *cells, filled(B, 4 * C)],
        "access": [1, R, tape(), filled(B, R * M), filled(B, R * M)],
        "access_back": [1, R, tape(), filled(B, R * M), *of_a_step],
    }
    return arguments[name]


class Wrong(NamedTuple):
    """A kernel's arguments of which one does not fit, and how."""

    kernel: str
    argument: str
    change: str
    arguments: list[Any]


def others(array: Array) -> Iterator[tuple[str, Array]]:
    """Arrays like this one, of each other shape and of other types."""
    for axis, size in enumerate(array.shape):
        for other in (0, size - 1, size + 1, 2 * size):
            shape = (*array.shape[:axis], other, *array.shape[axis + 1 :])
            yield f"axis {axis} of {other}", np.zeros(shape, np.float32)
    yield "an axis more", array[None].copy()
    yield "an axis less", array[0].copy()
    for kind in (np.float64, np.float16, np.int32, np.dtype(">f4")):
        yield f"of {np.dtype(kind).str}", array.astype(kind)


def wrong_arguments() -> Iterator[Wrong]:
    """Every kernel with every array and number of its arguments changed, one at a time."""
    for name, kernel in KERNELS.items():
        for position, parameter in enumerate(kernel.parameters):
            value = fitting(name)[position]

            def with_value(other: Any, name: str = name, position: int = position) -> list[Any]:
                arguments = fitting(name)
                arguments[position] = other
                return arguments

            if isinstance(value, int):
                for number in (-1, 0 if parameter == "reads" else T, value + T):
                    yield Wrong(name, parameter, str(number), with_value(number))
            elif isinstance(value, np.ndarray):
                for change, array in others(value):
                    yield Wrong(name, parameter, change, with_value(array))
            else:
                for field, part in value._asdict().items():
                    for change, array in others(part):
                        other = value._replace(**{field: array})
                        yield Wrong(name, f"{parameter}.{field}", change, with_value(other))


WRONG = list(wrong_arguments())


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: " ".join(wrong[:3]))
def test_a_kernel_refuses_what_does_not_fit(wrong: Wrong) -> None:
    """It is given each array of another shape and type, and each number outside its range."""
    with pytest.raises(ValueError, match=f"{wrong.kernel}\\b"):
        KERNELS[wrong.kernel](*wrong.arguments)


@pytest.mark.parametrize("name", KERNELS)
def test_a_kernel_runs_with_what_fits(name: str) -> None:
    """The arguments from which the wrong ones are made fit, and what is computed is finite."""
    arguments = fitting(name)
    KERNELS[name](*arguments)

    arrays = [each for each in arguments if isinstance(each, np.ndarray)]
    assert all(np.isfinite(array).all() for array in arrays)
    assert len([wrong for wrong in WRONG if wrong.kernel == name]) >= 10 * len(arrays)


def test_the_trainer_calls_no_compiled_code_but_kernels() -> None:
    """What is compiled without a check stays in the modules where kernels are made of it."""
    found = {
        f"{module.__name__}.{name}"
        for module in MODULES.values()
        for name, value in vars(module).items()
        if isinstance(value, Dispatcher)
    }

    assert {name.rpartition(".")[0] for name in found} == {"export.kernels", "export.access"}
    assert set(KERNELS) == {"lstm_cell", "lstm_cell_back", "access", "access_back"}


def test_arrays_need_not_be_contiguous() -> None:
    """A step writes the same numbers into rows of larger arrays as into arrays of its own."""
    alone = fitting("lstm_cell")
    KERNELS["lstm_cell"](*alone)
    apart = []
    for array in fitting("lstm_cell"):
        larger = np.zeros((array.shape[0], 2 * array.shape[1]), np.float32)
        larger[:, ::2] = array
        apart.append(larger[:, ::2])
    KERNELS["lstm_cell"](*apart)

    for one, other in zip(alone, apart, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def test_compiled_code_runs_where_nothing_can_be_written(tmp_path: Path) -> None:
    """Without a folder for numba's cache, it is compiled in each process, and training goes on."""
    package = tmp_path / "export"
    package.mkdir()
    for name in ("kernels.py", "__init__.py"):
        (package / name).write_text((Path(export.__path__[0]) / name).read_text())
    (package / "__pycache__").write_text("a file where a folder should be")
    (tmp_path / "home").write_text("a file where a folder should be")
    code = (
        "import numpy as np; from export.kernels import exp; x = np.float32([-1.0]);"
        "exp(x, np.empty(1, np.int32)); print(round(float(x[0]), 4), exp.stats.cache_path)"
    )
    env = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    env |= {"HOME": str(tmp_path / "home"), "XDG_CACHE_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=env | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.stdout, done.stderr, done.returncode) == ("0.3679 None\n", "", 0)
