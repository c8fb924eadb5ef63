"""Settings of trainings: as a command names them, and as `--set` replaces them."""

from __future__ import annotations

from collections.abc import Mapping

from export.configuration import Configuration
from export.configurations import CONFIGURATIONS, PAPER, of_task
from ntm_tasks import Task


def of(task: Task, architecture: str, *, paper: bool) -> Configuration:
    """Return the settings of a training. Raises ValueError if there are none."""
    name = f"{task.name}-{architecture}"
    if paper:
        return PAPER[known(name, PAPER)]
    return CONFIGURATIONS[name] if name in CONFIGURATIONS else of_task(task, architecture)


def known(name: str, table: Mapping[str, Configuration]) -> str:
    """Return the name if the table has a row for it. Raises ValueError if not."""
    if name not in table:
        raise ValueError(
            f"there is no configuration {name!r}; there are {', '.join(table)}; to add one, write "
            "its row in export/configurations.py"
        )
    return name


def settings(texts: tuple[str, ...]) -> dict[str, str]:
    """Return the settings that are written as NAME=VALUE, by name."""
    replaced: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"{text!r} is not NAME=VALUE")
        if name in replaced:
            raise ValueError(f"{name} is set to {replaced[name]} and to {value}; set it once")
        replaced[name] = value
    return replaced
