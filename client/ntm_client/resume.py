"""
Settings: how long a client tries again, and how many inputs it keeps to make lost steps again.
"""

from __future__ import annotations

from dataclasses import dataclass

from ntm_client import arguments
from ntm_client.errors import InvalidArgument


@dataclass(frozen=True)
class Resume:
    """
    What a client does when its sessions lose their server or the connection to it.

    The client sends the interrupted chunk again; the server makes its steps only once. If the
    session has lost steps, the client makes them again, from the inputs that it kept since the last
    durable step. It drops their outputs and goes on.
    """

    seconds: float = 60.0
    """How long a call is tried again after its first failure, including the time for lost steps."""
    first_backoff_seconds: float = 0.1
    """The longest pause before the second attempt. It doubles with each further attempt."""
    largest_backoff_seconds: float = 5.0
    """The longest pause before any attempt, unless the server asks for more."""
    max_kept_bytes: int = 64 * 2**20
    """Inputs that a session keeps for making steps again; beyond this, the oldest are dropped."""
    check: bool = True
    """Whether steps that are made again must give exactly the same outputs as the first time."""

    def __post_init__(self) -> None:
        for name in ("seconds", "first_backoff_seconds", "largest_backoff_seconds"):
            arguments.number(name, getattr(self, name), "a number of seconds, at least 0")
        arguments.whole("max_kept_bytes", self.max_kept_bytes, most=2**63 - 1)
        arguments.instance("check", self.check, bool, "True or False")
        if not 0 < self.first_backoff_seconds <= self.largest_backoff_seconds:
            raise InvalidArgument(
                "the first backoff must be more than 0 and at most the largest, not "
                f"{self.first_backoff_seconds} and {self.largest_backoff_seconds} s"
            )

    def backoff_seconds(self, failures: int, share: float) -> float:
        """
        The pause after `failures` failures in a row, at least 1.

        The pause is the longest pause times `share`, which is drawn evenly from 0 to 1 (full
        jitter). So clients that were interrupted together do not return together.
        """
        # 2.0**1000 is still a float, and the pause has reached its maximum long before.
        longest = self.first_backoff_seconds * 2.0 ** min(failures - 1, 1000)
        return share * min(longest, self.largest_backoff_seconds)


DEFAULT_RESUME = Resume()
