"""Whether sequences of a model's task can be drawn here."""

from __future__ import annotations

from ntm_client.errors import InvalidRequest
from ntm_client.values import Model
from ntm_lab import vectors
from ntm_tasks import TASKS, Task


def check_task(model: Model, named: Task | None = None, instead: str = "") -> None:
    """
    Check that a model's task is known here, and fits the model.

    Args:
        model: The model as its server describes it. Its task is only a name.
        named: The task that the user has named, if any; it must be the model's.
        instead: What can be named as well, for the message.

    Raises:
        InvalidRequest: it is not; the message says what to name.
    """
    vectors.check(model)
    if named is not None and named.name != model.task:
        raise InvalidRequest(
            f"{model.name} is of the task {model.task!r}, and {named.source or named.name} is "
            f"{named.name!r}; name the task that the model was trained on"
        )
    if model.task not in TASKS:
        choice = f", {instead}" if instead else ""
        raise InvalidRequest(
            f"{model.name} is of the task {model.task!r}, and sequences can be drawn of "
            f"{', '.join(TASKS)}; name the task's place with --task, as in training, such as "
            f"my_tasks:PARITY{choice}"
        )
    task = TASKS[model.task]
    if (task.input_width, task.output_width) != (model.input_width, model.output_width):
        raise InvalidRequest(
            f"{model.name} has {model.input_width} inputs and {model.output_width} outputs, and "
            f"the task {task.name} has {task.input_width} and {task.output_width}; name the task "
            "that the model was trained on"
        )
