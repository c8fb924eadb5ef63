"""Who makes a call, and what it may do."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass

from service.session_ref import ANYBODY, Caller

READ = "read"
"""Describe models and the caller's own sessions, and read their memory."""

STEP = "step"
"""Create, step, reset and delete the caller's own sessions."""

METRICS = "metrics"
"""Read /metrics on the monitoring port."""

SCOPES = (READ, STEP, METRICS)


@dataclass(frozen=True, slots=True)
class Principal:
    """Whoever makes a call: what its token or certificate names, or else the host it is on."""

    name: str
    """Unique, with where the name is from: token:alice, jwt:alice, certificate:alice."""
    scopes: frozenset[str] = frozenset(SCOPES)
    expires_unix_seconds: float | None = None
    is_authenticated: bool = True

    @property
    def caller(self) -> Caller:
        """
        This principal as the caller in a `SessionRef`.

        Where nobody is authenticated, it is `ANYBODY`: knowing the id of a session is enough.
        """
        return self.name if self.is_authenticated else ANYBODY


PRINCIPAL: ContextVar[Principal] = ContextVar("principal")
"""Who makes the call that is being answered; each call has a context of its own."""
