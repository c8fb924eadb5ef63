"""The tasks by name: the modules of `ntm_tasks.tasks`, the paper's five first, then plug-ins."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pkgutil import iter_modules

from ntm_tasks import tasks
from ntm_tasks.task import Task, TaskError

PLUGINS = "ntm_tasks"
"""The group of entry points by which an installed package adds a task of its own."""

PAPER = ("copy", "repeat-copy", "associative-recall", "ngrams", "priority-sort")
"""The paper's tasks in the order of the paper, which tables follow."""


class Tasks(Mapping[str, Task]):
    """
    All tasks by name. Those of other packages are loaded when they are first looked for.

    So a package that adds a task may import `ntm_tasks`, and look at the tasks here. A package
    whose task cannot be loaded is left out with a warning.
    """

    def __init__(self, tasks: Iterable[Task]) -> None:
        self._tasks: dict[str, Task] = {}
        self._has_plugins = False
        for task in tasks:
            self.add(task)

    def __getitem__(self, name: str) -> Task:
        if name not in self._tasks:
            self._load_plugins()
        return self._tasks[name]

    def __iter__(self) -> Iterator[str]:
        self._load_plugins()
        return iter(self._tasks)

    def __len__(self) -> int:
        self._load_plugins()
        return len(self._tasks)

    def add(self, task: Task) -> None:
        """
        Add a task. One that was loaded from the same source before is replaced.

        Raises TaskError if another one has its name.
        """
        other = self._tasks.get(task.name)
        if other is not None and not (other.source and other.source == task.source):
            raise TaskError(f"there is a task {task.name!r} already; give this one another name")
        self._tasks[task.name] = task

    def _load_plugins(self) -> None:
        if not self._has_plugins:
            self._has_plugins = True
            for plugin in entry_points(group=PLUGINS):
                self._load(plugin)

    def _load(self, plugin: EntryPoint) -> None:
        try:
            task = plugin.load()
            if not isinstance(task, Task):
                raise TaskError(f"it is a {type(task).__name__}, and must be a Task")
            self.add(task)
        # The package of somebody else: importing it can raise anything, and may even try to exit.
        except (Exception, SystemExit) as error:
            where = f"{plugin.name} = {plugin.value!r}"
            warnings.warn(f"the task {where} cannot be loaded: {error}", stacklevel=2)


def _ours() -> list[Task]:
    """The tasks of this package, the paper's first."""
    names = (module.name for module in iter_modules(tasks.__path__))
    found: list[Task] = [import_module(f"{tasks.__name__}.{name}").TASK for name in names]
    order = {name: index for index, name in enumerate(PAPER)}
    return sorted(found, key=lambda task: (order.get(task.name, len(PAPER)), task.name))


TASKS = Tasks(_ours())


def register(task: Task) -> None:
    """Add a task to `TASKS`. Raises TaskError if another one has its name."""
    TASKS.add(task)
