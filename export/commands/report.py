"""Compare all models with each other and with the paper."""

from __future__ import annotations

from pathlib import Path

from export import report as report_file
from export.options import ExistingFolder, check_output


def report(*, models: ExistingFolder = Path("models")) -> None:
    """
    Compare all models with each other and with the paper, in REPORT.md and its pictures.

    Args:
        models: Folder of the models, to read and to write.
    """
    check_output("--models", models)
    print(report_file.write(models))
