"""Run a list of trainings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from export import sweep as sweeping
from export.commands import rows
from export.configurations import CONFIGURATIONS
from export.device import opened
from export.options import Device, Folder, Seeds, check_output


def sweep(
    *names: Annotated[str, Parameter(name="TASK-ARCHITECTURE")],
    seeds: Seeds = (1,),
    set: tuple[str, ...] = (),  # noqa: A002 - the option's name
    runs: Folder = Path("runs"),
    device: Device = "cpu",
) -> None:
    """
    Run trainings one after another, each in a process of its own.

    Args:
        names: Such as copy-ntm-lstm; all of the table by default.
        seeds: Seeds of each.
        set: Replace a setting in all of them, as NAME=VALUE; --set again for another.
        runs: Folder of the checkpoints.
        device: Device to train on.
    """
    for name in names:
        if "=" in name:
            raise ValueError(f"{name!r} is no configuration; to replace a setting: --set {name}")
    chosen = [rows.known(name, CONFIGURATIONS) for name in dict.fromkeys(names or CONFIGURATIONS)]
    settings = rows.settings(set)
    configurations = [CONFIGURATIONS[name].with_settings(settings) for name in chosen]
    check_output("--runs", runs)
    outcomes = sweeping.sweep(configurations, list(dict.fromkeys(seeds)), runs, opened(device), set)
    print(sweeping.table(outcomes))
    failed = [outcome for outcome in outcomes if not outcome.finished]
    if failed:
        raise ArithmeticError(f"{len(failed)} of {len(outcomes)} trainings failed")
