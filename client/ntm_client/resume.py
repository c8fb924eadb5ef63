"""How long and how often a client tries again, and how much it keeps to make lost steps again."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Resume:
    """
    What a client does when a server, or the way to it, is lost under its sessions.

    A session that is interrupted sends the same chunk again, which the server makes once only. If
    the session has lost steps, its client makes them again from the inputs that it kept since the
    last durable step, throws their outputs away, and goes on.
    """

    seconds: float = 60.0
    """How long a call keeps trying after its first failure, steps made again included."""
    first_backoff_seconds: float = 0.1
    """The longest pause before the second attempt; it doubles with each further one."""
    largest_backoff_seconds: float = 5.0
    """The longest pause before any attempt, unless the server asks for more."""
    max_kept_bytes: int = 64 * 2**20
    """Inputs that a session keeps for making steps again; the oldest go when there are more."""
    check: bool = True
    """Whether steps made again must give the same bits as they did the first time."""

    def __post_init__(self) -> None:
        if not 0 < self.first_backoff_seconds <= self.largest_backoff_seconds:
            raise ValueError(
                "the first backoff must be more than 0 and at most the largest, not "
                f"{self.first_backoff_seconds} and {self.largest_backoff_seconds} s"
            )
        if self.seconds < 0 or self.max_kept_bytes < 0:
            raise ValueError(
                "seconds and max_kept_bytes must not be negative, not "
                f"{self.seconds} and {self.max_kept_bytes}"
            )

    def backoff_seconds(self, failures: int, share: float) -> float:
        """
        The pause after `failures` failures in a row, at least 1.

        Full jitter: `share`, drawn evenly from 0 to 1, of the longest pause; clients that were
        interrupted together come back apart.
        """
        # 2.0**1000 still is a float, and all pauses are long at the largest by then.
        longest = self.first_backoff_seconds * 2.0 ** min(failures - 1, 1000)
        return share * min(longest, self.largest_backoff_seconds)


DEFAULT_RESUME = Resume()
