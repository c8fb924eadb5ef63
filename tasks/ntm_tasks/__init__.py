"""Random sequences for training and testing networks: the paper's five tasks, and your own."""

from ntm_tasks.loading import load
from ntm_tasks.registry import TASKS, register
from ntm_tasks.sequence import TaskSequence
from ntm_tasks.task import (
    Batch,
    Float32,
    Purpose,
    Size,
    Task,
    TaskError,
    generator_for,
    size_text,
)

__all__ = [
    "TASKS",
    "Batch",
    "Float32",
    "Purpose",
    "Size",
    "Task",
    "TaskError",
    "TaskSequence",
    "generator_for",
    "load",
    "register",
    "size_text",
]
