"""Cores are counted by affinity and by the quotas of control groups."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from service.models import cores


@pytest.mark.parametrize(
    ("own", "quotas", "expected"),
    [
        ("0::/\n", {"": "max 100000\n"}, 8),
        ("0::/\n", {"": "200000 100000\n"}, 2),
        ("0::/\n", {"": "150000 100000\n"}, 2),
        ("0::/\n", {"": "50000 100000\n"}, 1),
        ("0::/\n", {"": "6400000 100000\n"}, 8),
        ("0::/\n", {}, 8),
        ("0::/pods/ntm\n", {"pods/ntm": "max 100000\n", "pods": "300000 100000\n"}, 3),
        ("0::/pods/ntm\n", {"pods/ntm": "100000 50000\n", "pods": "300000 100000\n"}, 2),
        ("4:cpu,cpuacct:/ntm\n", {"": "200000 100000\n"}, 8),
        (None, {}, 8),
    ],
)
def test_cores_are_those_of_the_smallest_quota(
    own: str | None,
    quotas: dict[str, str],
    expected: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of the process's group and those above it, rounded up, and at most the machine's eight."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(cores, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(cores, "OWN_CGROUP", tmp_path / "own")
    if own is not None:
        (tmp_path / "own").write_text(own)
    for group, quota in quotas.items():
        folder = tmp_path / "cgroup" / group
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "cpu.max").write_text(quota)
    (tmp_path / "cpu.max").write_text("10000 100000\n")  # not a control group: above all of them

    assert cores.cores() == expected
