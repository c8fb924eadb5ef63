"""The page of all settings of the server."""

from __future__ import annotations

from dataclasses import Field, fields
from typing import Any

from docs.generate.markdown import head, sentence
from service.settings import Settings, variable

INTRODUCTION = """
Each setting of `python -m service` is a flag and an environment variable. A flag wins over the
variable, and the variable wins over the default. A value out of range ends the server at its start,
with the setting, the value and what is allowed. [Operating](../operating.md#what-to-set) says which
settings a deployment usually changes.
"""


def page() -> str:
    """Flag, variable, default, allowed values and help of each setting, in order of declaration."""
    parts = [head("Settings", "service/settings.py"), INTRODUCTION]
    parts.extend(_entry(setting) for setting in fields(Settings))
    return "".join(parts)


def _entry(setting: Field[Any]) -> str:
    flag = setting.name.replace("_", "-")
    default = f"`{setting.default}`" if str(setting.default) else "empty"
    facts = [f"`--{flag}`", f"`{variable(setting)}`", f"default: {default}"]
    allowed = _allowed(setting)
    return (
        f"\n## {flag}\n\n{' · '.join(facts + ([allowed] if allowed else []))}\n\n"
        f"{sentence(setting.metadata['help'])}\n"
    )


def _allowed(setting: Field[Any]) -> str:
    """The allowed values of a setting, besides its type; empty if there is no limit."""
    choices, minimum, maximum = (
        setting.metadata[name] for name in ("choices", "minimum", "maximum")
    )
    if choices:
        return "one of " + ", ".join(f"`{choice}`" for choice in choices)
    limits = [
        f"{word} {value:,}"
        for word, value in (("at least", minimum), ("at most", maximum))
        if value is not None
    ]
    return ", ".join(limits)
