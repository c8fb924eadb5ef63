"""The command line `ntm-export`, and its twin `python -m export`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError, Parameter

FAILED, MISUSED, INTERRUPTED = 1, 2, 130
"""Exit statuses of a command that failed, that was not understood, and that was interrupted."""

SUMMARIES = {
    "train": "Train a network on a task; again, to go on from the last checkpoint.",
    "sweep": "Run a list of trainings; again, to skip those that are finished.",
    "export": "Write the trained network that is best in validation as a model to serve.",
    "evaluate": "Measure an exported model, and compare the result with its card.",
    "report": "Compare all models with each other and with the paper.",
}
"""
The commands and their help. A command is imported, with torch, when it runs, so that help is fast.
"""

app = App(
    "ntm-export",
    help="Train Neural Turing Machines, and write them as models to serve.",
    default_parameter=Parameter(negative=(), show_default=lambda value: value or None),
    help_format="plaintext",
    version_flags=(),
)
app.register_install_completion_command(help="Complete commands and options in this shell.")
for _name, _summary in SUMMARIES.items():
    app.command(f"export.commands:{_name}", name=_name, help=_summary)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    # gRPC's core would write lines of its own beside the sentence about a failed connection.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        chain = " ".join(("ntm-export", *(error.command_chain or ())))
        _say(f"{error} See `{chain} --help`.")
        return MISUSED
    except KeyboardInterrupt:
        print("stopped; the same command goes on from the last checkpoint", file=sys.stderr)
        return INTERRUPTED
    except ImportError as error:
        from ntm.versions import LibraryUnfit

        if not isinstance(error.__cause__, LibraryUnfit):
            raise
        _say(str(error.__cause__))
        return FAILED
    except Exception as error:
        if not _is_expected(error):
            raise
        _say(str(error))
        return FAILED
    return 0


def _say(message: str) -> None:
    print(f"ntm-export: {message}", file=sys.stderr)


def _is_expected(error: Exception) -> bool:
    """Whether an error can occur although the program has no mistake."""
    from ntm_client.errors import NtmClientError

    return isinstance(error, ValueError | OSError | ArithmeticError | NtmClientError)


if __name__ == "__main__":
    sys.exit(main())
