"""The versions of grpcio and protobuf that the stubs in `v1` and the server need."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

Bounds = Mapping[str, tuple[tuple[int, ...], tuple[int, ...] | None]]
"""By library, the first version that fits, and the first later one that does not."""

NEEDED: Bounds = {"grpcio": ((1, 81, 1), None), "protobuf": ((6, 33, 5), (8,))}
"""What a client needs, as in its pyproject.toml."""

SERVER_NEEDS: Bounds = {**NEEDED, "grpcio": ((1, 81, 1), (1, 86))}
"""What the server needs: it uses an interface of grpcio that is private."""


class LibraryUnfit(ImportError):
    """An installed library is too old or too new; the message says how to install another."""


def check(needed: Bounds = NEEDED) -> None:
    """
    Raise LibraryUnfit unless the installed libraries fit.

    The stubs check this too, with a traceback, and only as far as the library has the check.
    """
    for name, (least, below) in needed.items():
        try:
            installed = version(name)
        except PackageNotFoundError:  # installed by other means than pip
            continue
        found = tuple(map(int, re.findall(r"\d+", installed)[:3]))
        if found < least or (below and found >= below):
            wanted = f"{name}>={'.'.join(map(str, least))}"
            wanted += f",<{'.'.join(map(str, below))}" if below else ""
            raise LibraryUnfit(
                f"{name} {installed} is installed, and {wanted} is needed; install it with "
                f"`python -m pip install '{wanted}'`"
            )
