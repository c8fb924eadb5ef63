"""The processor cores that this process may use."""

from __future__ import annotations

import math
import os
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")


def cores() -> int:
    """
    The cores that the process may run on, or fewer if a container's CPU quota is smaller.

    More threads than the quota has cores would use it up early in each period, and the kernel then
    stops all threads, those that answer calls too, until the next period begins. Quotas are read
    from control groups of version 2: https://docs.kernel.org/admin-guide/cgroup-v2.html
    """
    return max(1, math.ceil(min(len(os.sched_getaffinity(0)), _quota())))


def _quota() -> float:
    """The smallest quota of the process's control group and of those above it, in cores."""
    try:
        lines = OWN_CGROUP.read_text(encoding="ascii").splitlines()
    except OSError:  # no control groups here
        return math.inf
    path = next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), None)
    if path is None:  # of version 1
        return math.inf
    own = CGROUPS / path
    groups = [own, *own.parents][: len(Path(path).parts) + 1]
    return min(map(_quota_of, groups))


def _quota_of(group: Path) -> float:
    try:
        quota, period = (group / "cpu.max").read_text(encoding="ascii").split()
    except OSError:  # the topmost group has none
        return math.inf
    return math.inf if quota == "max" else int(quota) / int(period)
