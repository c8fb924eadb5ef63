"""The bound on a share of which few cases were seen."""

from __future__ import annotations

from math import comb

CONFIDENCE = 0.95


def largest_share(false: int, total: int, confidence: float = CONFIDENCE) -> float:
    """
    The upper bound of Clopper and Pearson for a share, one-sided: the share at which so few cases
    or fewer would be seen with the probability 1 - confidence. With no case, it is close to 3 /
    total, the rule of three.
    """
    if false >= total:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(60):
        share = (low + high) / 2
        seen = sum(
            comb(total, each) * share**each * (1 - share) ** (total - each)
            for each in range(false + 1)
        )
        low, high = (share, high) if seen > 1 - confidence else (low, share)
    return high
