"""One sequence of a task: its inputs, and the outputs that a network should give."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ntm_tasks.registry import TASKS
from ntm_tasks.task import Float32, Size, TaskError


@dataclass(frozen=True, eq=False)
class TaskSequence:
    """A sequence of T steps of one task."""

    task: str
    size: Size
    """The numbers that make the sequence long, in the order of the task's `size_names`."""
    inputs: Float32
    """[T, input width]"""
    target: Float32
    """[T, output width], 0 or 1; zeros where the mask is 0."""
    mask: Float32
    """[T]: 1 in the steps whose output counts, else 0."""
    optimum: Float32 | None
    """[T, output width]: the best probabilities that a predictor could give; None if unknown."""
    marks: Mapping[int, str]
    """The names of steps such as a delimiter, by the index of the step."""

    @classmethod
    def draw(cls, task: str, size: Size | None = None, seed: int | None = None) -> TaskSequence:
        """
        A random sequence of a task.

        Args:
            task: One of `TASKS`.
            size: The numbers that `size_names` of the task names; None for the largest of training.
            seed: The seed of the sequence; None for another sequence each time.

        Raises:
            TaskError: there is no such task, or no sequence of that size.
        """
        if task not in TASKS:
            raise TaskError(f"no task is called {task!r}; there are {', '.join(TASKS)}")
        chosen = TASKS[task]
        size = chosen.largest if size is None else size
        problem = chosen.size_problem(size)
        if problem:
            raise TaskError(problem)
        batch = chosen.example(np.random.default_rng(seed), size)
        return cls(
            task,
            size,
            inputs=batch.inputs[:, 0],
            target=batch.targets[:, 0],
            mask=batch.mask[:, 0],
            optimum=None if batch.optimum is None else batch.optimum[:, 0],
            marks=chosen.marks(size),
        )

    @property
    def due(self) -> Float32:
        """The part of the target that counts, [steps that count, output width]."""
        due: Float32 = self.target[self.mask > 0]
        return due

    def answer(self, outputs: Float32) -> Float32:
        """The part of the outputs [T, output width] that counts, as bits like `due`."""
        return (outputs[self.mask > 0] > 0.5).astype(np.float32)
