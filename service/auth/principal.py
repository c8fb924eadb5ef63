"""Principals: the caller of a call, and the scopes that say what it may do."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass

from service.session_ref import ANYBODY, Caller

READ = "read"
"""Describe models and the caller's own sessions, and read the memory of these sessions."""

STEP = "step"
"""Create, step, reset and delete the caller's own sessions."""

METRICS = "metrics"
"""Read /metrics on the monitoring port."""

SCOPES = (READ, STEP, METRICS)


@dataclass(frozen=True, slots=True)
class Principal:
    """The caller: named by its token or certificate, or by its host if there is neither."""

    name: str
    """Unique, with a prefix for its source: token:alice, jwt:alice, certificate:alice."""
    scopes: frozenset[str] = frozenset(SCOPES)
    expires_unix_seconds: float | None = None
    """When its token expires; None for never."""
    is_authenticated: bool = True

    @property
    def caller(self) -> Caller:
        """
        This principal as the caller in a `SessionRef`.

        Where nobody is authenticated, it is `ANYBODY`: knowing the id of a session is enough.
        """
        return self.name if self.is_authenticated else ANYBODY


PRINCIPAL: ContextVar[Principal] = ContextVar("principal")
"""The caller of the current call; each call has a context of its own."""
