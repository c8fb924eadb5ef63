"""How a caller names a session, and the only check that the session is the caller's."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple, TypeAlias


class Unnamed(Enum):
    """Callers that have no name to compare with the owner of a session."""

    ANYBODY = "anybody"
    SERVER = "server"


ANYBODY = Unnamed.ANYBODY
"""A caller of a server that authenticates nobody: knowing the id of a session is enough."""

SERVER = Unnamed.SERVER
"""The server itself, which ends and stores sessions of any owner."""

Caller: TypeAlias = str | Unnamed
"""The name of an authenticated principal, or one of the two constants above."""


class SessionRef(NamedTuple):
    """
    A session as a caller names it.

    No part has a default, so that no request reaches a session without saying whose it is.
    """

    id: str
    caller: Caller
    epoch: int
    """The latest epoch of the session that the caller has received; 0 for none."""

    def may_use(self, owner: str) -> bool:
        """Whether the caller may use a session of that owner."""
        return self.caller == owner or isinstance(self.caller, Unnamed)
