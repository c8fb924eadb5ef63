"""A task of your own: from a place in a Python module, or from a file of sequences."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from traceback import extract_tb
from types import ModuleType

import numpy as np

from ntm_tasks.registry import TASKS, register
from ntm_tasks.sequences_file import SUFFIX, read
from ntm_tasks.task import KINDS, Batch, Float32, Generate, Size, Task, TaskError, check_values

_PLACE = re.compile(r"([^\W\d]\w*(?:\.[^\W\d]\w*)*):([^\W\d]\w*)")


def load(source: str) -> Task:
    """
    Return a task by its name, its place in a Python module, or its file of sequences.

    A place is MODULE:NAME, such as `my_package.tasks:PARITY`; the module may also lie in the
    current folder. Importing it runs its code. A file is one of `ntm_tasks.sequences_file`; nothing
    in it is run. The task is then in `TASKS` under its own name.

    Args:
        source: The name, the place or the file.

    Raises:
        TaskError: there is no such task, it is not one, or what it draws does not fit it.
    """
    if source in TASKS:
        return TASKS[source]
    task: Task
    if source.endswith(SUFFIX):
        task = read(Path(source))
    elif ":" in source:
        task = _from_module(source)
    else:
        raise TaskError(
            f"there is no task {source!r}; there are {', '.join(TASKS)}; name one of your own as "
            f"MODULE:NAME, such as my_tasks:PARITY, or a file of sequences that ends in {SUFFIX}"
        )
    register(task)
    return task


def _from_module(source: str) -> Task:
    found = _PLACE.fullmatch(source)
    if found is None or found[1].endswith(".py"):
        raise TaskError(
            f"{source!r} is not MODULE:NAME, such as my_package.tasks:PARITY; the module is named "
            "as in an import, with dots and without .py"
        )
    module = _imported(source, found[1])
    where = getattr(module, "__file__", None) or found[1]
    if not hasattr(module, found[2]):
        tasks = [name for name, value in vars(module).items() if isinstance(value, Task)]
        raise TaskError(
            f"{source}: {where} has no {found[2]}; "
            + (f"its tasks are {', '.join(tasks)}" if tasks else "it has no tasks at all")
        )
    task = getattr(module, found[2])
    if not isinstance(task, Task):
        kind = "class" if isinstance(task, type) else type(task).__name__
        raise TaskError(
            f"{source} is a {kind}, not a task; make it an object of ntm_tasks.Task: "
            f"{found[2]} = Task(...)"
        )
    task = replace(task, source=source, generate=_checked(task, source))
    _check_seeded(task)
    return task


def _imported(source: str, name: str) -> ModuleType:
    """Import a module of the user's, which may lie in the current folder."""
    here = os.getcwd()
    if here not in sys.path:
        sys.path.append(here)  # the last, so that a file here hides no library
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise TaskError(f"{source} cannot be imported: {error}; install that module") from error
        raise TaskError(
            f"{source}: there is no module {error.name}, neither in {here} nor among the installed "
            "packages; go to the folder that has it, or install it"
        ) from error
    # The user's own code: importing it can raise anything, and may even try to exit.
    except (Exception, SystemExit) as error:
        raise TaskError(f"{source} cannot be imported: {_said(error)}") from error


def _said(error: BaseException) -> str:
    """Return what an error in the user's code says, and the line that it comes from."""
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if isinstance(error, SyntaxError):
        return text  # which has the line
    frames = [frame for frame in extract_tb(error.__traceback__) if _is_of_user(frame.filename)]
    return f"{text} ({frames[-1].filename}, line {frames[-1].lineno})" if frames else text


def _is_of_user(file: str) -> bool:
    return not file.startswith("<") and Path(file).parent != Path(__file__).parent


def _checked(task: Task, source: str) -> Generate:
    """Return the task's `generate`, which raises TaskError for a batch that does not fit it."""

    def generate(
        generator: np.random.Generator, batch: int, size: Size, blank_rate: float = 0.0
    ) -> Batch:
        # A task without vectors to make blank need not take the rate.
        rate = (blank_rate,) if blank_rate else ()
        try:
            drawn = task.generate(generator, batch, size, *rate)
        except TaskError:
            raise
        except Exception as error:  # the user's own code can raise anything
            raise TaskError(
                f"{source}: generate fails for {batch} sequences of size {size}: {_said(error)}"
            ) from error
        try:
            return _as_batch(drawn, batch, task)
        except TaskError as error:
            raise TaskError(f"{source}: for {batch} sequences of size {size}, {error}") from error

    return generate


def _as_batch(drawn: object, batch: int, task: Task) -> Batch:
    if not isinstance(drawn, tuple) or len(drawn) not in (3, 4):
        raise TaskError(
            f"generate returns {type(drawn).__name__}; return Batch(inputs, targets, mask)"
        )
    arrays = dict(zip(Batch._fields, drawn, strict=False))
    optimum = arrays.pop("optimum", None)
    steps = np.shape(arrays["inputs"])[:1]
    shapes = {
        "inputs": (*steps, batch, task.input_width),
        "targets": (*steps, batch, task.output_width),
        "mask": (*steps, batch),
        "optimum": (*steps, batch, task.output_width),
    }
    if optimum is not None:
        arrays["optimum"] = optimum
    made = {name: _array(name, value, shapes[name]) for name, value in arrays.items()}
    check_values(made)
    return Batch(**made)


def _array(name: str, value: object, shape: tuple[int, ...]) -> Float32:
    if not isinstance(value, np.ndarray) or value.dtype.kind not in KINDS:
        kind = f"an array of {value.dtype}" if isinstance(value, np.ndarray) else type(value)
        raise TaskError(f"{name} is {kind}; it must be a numpy array of numbers")
    if value.shape != shape or not shape[0]:
        axes = "steps, sequences" + ("" if name == "mask" else ", channels")
        wanted = shape if len(shape) > 1 and shape[0] else ("at least 1", *shape[1:])
        raise TaskError(f"{name} has the shape {value.shape}; it must be {wanted}: {axes}")
    return value.astype(np.float32, copy=False)


def _check_seeded(task: Task) -> None:
    """Draw twice from one seed, as a training that goes on from a checkpoint does."""
    for size in {task.smallest, task.largest}:
        one, other = (task.generate(np.random.default_rng(1), 2, size) for _ in range(2))
        same = all(np.array_equal(*pair) for pair in zip(one[:3], other[:3], strict=True))
        if not same:
            raise TaskError(
                f"{task.source}: generate draws other sequences from the same generator; draw all "
                "randomness from the generator that it is given"
            )
