"""A task of your own: from a place in a Python module, or from a file of sequences."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from ntm_tasks.places import PlaceError, find, said
from ntm_tasks.registry import TASKS, register
from ntm_tasks.sequences_file import SUFFIX, read
from ntm_tasks.task import KINDS, Batch, Float32, Generate, Size, Task, TaskError, check_values


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
    try:
        task = find(source, Task, "ntm_tasks", "my_package.tasks:PARITY")
    except PlaceError as error:
        raise TaskError(str(error)) from error
    task = replace(task, source=source, generate=_checked(task, source))
    _check_seeded(task)
    return task


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
                f"{source}: generate fails for {batch} sequences of size {size}: {said(error)}"
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
