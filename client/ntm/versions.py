"""The libraries that the stubs in `v1` need, at the versions that they were generated for."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, version

NEEDED = {"grpcio": ((1, 81, 1), None), "protobuf": ((6, 33, 5), (8,))}
"""The first version that fits, and the first later one that does not, as in pyproject.toml."""


class LibraryUnfit(ImportError):
    """An installed library is too old or too new; the message says how to install another."""


def check() -> None:
    """
    Raise LibraryUnfit unless grpcio and protobuf fit.

    The stubs check this too, with a traceback, and only as far as the library has the check.
    """
    for name, (least, below) in NEEDED.items():
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
