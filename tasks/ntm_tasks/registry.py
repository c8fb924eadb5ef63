"""The tasks by name: the modules of `ntm_tasks.tasks`, the paper's five first, then plug-ins."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points
from pkgutil import iter_modules

from ntm_tasks import tasks
from ntm_tasks.task import Task, TaskError

PLUGINS = "ntm_tasks"
"""The group of entry points by which an installed package adds a task of its own."""

PAPER = ("copy", "repeat-copy", "associative-recall", "ngrams", "priority-sort")
"""The paper's tasks in the order of the paper, which tables follow."""

TASKS: dict[str, Task] = {}


def register(task: Task) -> None:
    """Add a task to `TASKS`. Raises TaskError if another task has the name."""
    if task.name in TASKS:
        raise TaskError(f"there is a task {task.name!r} already; give this one another name")
    TASKS[task.name] = task


def _ours() -> list[Task]:
    """The tasks of this package, the paper's first."""
    names = (module.name for module in iter_modules(tasks.__path__))
    found: list[Task] = [import_module(f"{tasks.__name__}.{name}").TASK for name in names]
    order = {name: index for index, name in enumerate(PAPER)}
    return sorted(found, key=lambda task: (order.get(task.name, len(PAPER)), task.name))


for _task in (*_ours(), *(plugin.load() for plugin in entry_points(group=PLUGINS))):
    register(_task)
