"""
The architectures that can be trained: one module of this folder each.

A module has the constant `ARCHITECTURE`; nothing else has to name it. Its settings for a task are a
row of `export.configurations`.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from export.network import Architecture, ArchitectureError, Network, Sizes

PAPER = ("ntm-ff", "ntm-lstm", "lstm")
"""The paper's architectures in its order, which tables keep."""

ARCHITECTURES: dict[str, Architecture] = {}
"""By name: the paper's first, then those of the other modules, then those registered later."""


def register(architecture: Architecture) -> None:
    """
    Add an architecture. One that was loaded from the same source before is replaced.

    Raises ArchitectureError if another one has its name.
    """
    other = ARCHITECTURES.get(architecture.name)
    if other is not None and not (other.source and other.source == architecture.source):
        raise ArchitectureError(
            f"there is an architecture {architecture.name!r} already; give this one another name"
        )
    ARCHITECTURES[architecture.name] = architecture


def build(architecture: str, sizes: Sizes, seed: int) -> Network:
    """Make a network of one of the `ARCHITECTURES`, its parameters drawn from a seed."""
    return ARCHITECTURES[architecture].build(sizes, seed)


def _found() -> list[Architecture]:
    modules = [import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__)]
    found: list[Architecture] = [module.ARCHITECTURE for module in modules]
    order = {name: index for index, name in enumerate(PAPER)}
    return sorted(found, key=lambda each: (order.get(each.name, len(PAPER)), each.name))


for _architecture in _found():
    register(_architecture)
