"""An architecture of your own, by its place in a Python module."""

from __future__ import annotations

from dataclasses import replace

from export.architectures import ARCHITECTURES, register
from export.configuration import SETTINGS
from export.network import Architecture, ArchitectureError
from ntm_tasks.places import PlaceError, find


def load(source: str) -> Architecture:
    """
    Return an architecture by its name, or by its place in a Python module.

    A place is MODULE:NAME, such as `my_nets:MY_NET`; the module may also lie in the current folder.
    Importing it runs its code. The architecture is then in `ARCHITECTURES` under its own name.

    Raises:
        ArchitectureError: there is no such architecture, or it is not one.
    """
    if source in ARCHITECTURES:
        return ARCHITECTURES[source]
    if ":" not in source:
        raise ArchitectureError(
            f"there is no architecture {source!r}; there are {', '.join(ARCHITECTURES)}; name one "
            "of your own as MODULE:NAME, such as my_nets:MY_NET"
        )
    try:
        architecture = find(source, Architecture, "export.network", "my_nets:MY_NET")
    except PlaceError as error:
        raise ArchitectureError(str(error)) from error
    unknown = [name for name in architecture.allows if name not in SETTINGS]
    if unknown:
        raise ArchitectureError(
            f"{source}: allows names {', '.join(unknown)}; settings are {', '.join(SETTINGS)}"
        )
    architecture = replace(architecture, source=source)
    register(architecture)
    return architecture
