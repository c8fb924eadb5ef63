"""The command line: runs a command, and reports an error in one sentence."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from io import TextIOWrapper
from typing import NamedTuple

from cyclopts import App, CycloptsError, Parameter, ValidationError

from ntm_lab.commands import interrupts
from ntm_lab.texts import printable

FAILED, INTERRUPTED = 2, 130


class Command(NamedTuple):
    """Where a command is defined, and its line in the help, which is shown without importing it."""

    function: str
    summary: str
    examples: str


COMMANDS = {
    "demo": Command(
        "ntm_lab.commands.demo:demo",
        "Let a model copy random vectors, draw its heads and count wrong bits.",
        "  ntm demo --length 100 --locations 256 --png copy.png",
    ),
    "trace": Command(
        "ntm_lab.commands.trace:trace",
        "Draw what the heads do over time, and the memory before and after.",
        """\
  ntm trace copy-ntm-lstm
  ntm trace repeat-copy-ntm-ff --size 10 3 --seed 1 --png heads.png
  ntm trace copy-ntm-lstm --input steps.csv --save copy.npz
  ntm trace --open copy.npz --svg heads.svg --html heads.html""",
    ),
    "stream": Command(
        "ntm_lab.commands.stream:stream",
        "Make the steps of a file or of standard input, and write their outputs.",
        """\
  ntm stream copy-ntm-lstm --input steps.npy --output outputs.npy
  ./sensor | ntm stream copy-ntm-lstm --format jsonl | ./display
  ntm stream copy-ntm-lstm --input first.csv --keep
  ntm stream --session ID --input second.csv
  ./sensor | ntm stream copy-ntm-lstm --durability synchronous""",
    ),
    "decipher": Command(
        "ntm_lab.commands.decipher:decipher",
        "Find the program that a network runs, and measure how true it is.",
        """\
  ntm decipher copy-ntm-lstm --sequences 100 --json program.json
  ntm decipher associative-recall-ntm-lstm --html program.html
  ntm decipher --recordings *.npz
  ntm decipher --all models""",
    ),
    "watch": Command(
        "ntm_lab.commands.watch:watch",
        "Show a running session's memory and heads, without disturbing it.",
        "  ntm watch SESSION --once",
    ),
    "models": Command(
        "ntm_lab.commands.listing:models",
        "List the models that the server has.",
        "  ntm models --server ntm.example:50051 --tls",
    ),
    "sessions": Command(
        "ntm_lab.commands.listing:sessions",
        "List the sessions that you have open on the server.",
        "  ntm sessions",
    ),
}
"""
The commands by name. A command's module is imported when the command runs, so that help is fast.
"""


def _version() -> str:
    # Imported here, because it takes as long as the rest of the help.
    from importlib.metadata import version

    return version("ntm-lab")


app = App(
    "ntm",
    help="Step Neural Turing Machines on a server, and look at what their heads do.",
    version=_version,
    default_parameter=Parameter(negative=(), show_default=lambda value: value or None),
    help_format="plaintext",
)
app.register_install_completion_command(help="Complete commands and options in this shell.")
for _name, _command in COMMANDS.items():
    app.command(
        _command.function,
        name=_name,
        help=_command.summary,
        help_epilogue=f"Examples:\n{_command.examples}",
    )


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run one command and return its status. After an error, print it on standard error and return 2.
    """
    # gRPC's core would write lines of its own beside the sentence about a failed connection.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    # numpy reads it when it is loaded. On a machine that does other things, such as the server's
    # steps, threads of the linear algebra wait for each other, and a fit takes many times as long.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if isinstance(sys.stdout, TextIOWrapper):
        # A terminal without a character, such as a bar of a picture, shows a question mark.
        sys.stdout.reconfigure(errors="replace")
    try:
        with interrupts.raised():
            status: int | None = app(
                argv, exit_on_error=False, print_error=False, result_action="return_value"
            )
            sys.stdout.flush()  # here, where an error of it is said
    except CycloptsError as error:
        if isinstance(error, ValidationError) and error.argument is not None:
            value = error.argument.value
            if isinstance(value, tuple):  # would be shown as Python writes it
                error.value = ", ".join(map(str, value))
        command = " ".join(("ntm", *(error.command_chain or ())))
        stop = "" if str(error).endswith((".", "?")) else "."
        return _failed(f"{error}{stop} See `{command} --help`.")
    except BrokenPipeError:
        _drop_output()  # its reader has closed it
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    except ImportError as error:
        # Imported here, because the help does not need it.
        from ntm.versions import LibraryUnfit

        if not isinstance(error.__cause__, LibraryUnfit):
            raise
        return _failed(str(error.__cause__))
    except Exception as error:
        if not _is_expected(error):
            raise
        if _is_of_full_output(error):
            _drop_output()
        return _failed(_sentence(error))
    return status or 0


def _drop_output() -> None:
    """Leave what is not written yet, so that Python's last flush does not fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _is_of_full_output(error: Exception) -> bool:
    """Whether there is no place for what is printed. All else is written with a file's name."""
    from ntm_lab.outputs import FULL

    return isinstance(error, OSError) and error.errno in FULL and error.filename is None


def _failed(message: str) -> int:
    print(f"ntm: {printable(message)}", file=sys.stderr)
    return FAILED


def _sentence(error: Exception) -> str:
    """What an error says, in words of this command where it names calls of the API."""
    from ntm_client.errors import InvalidRequest, ModelUnknown, Unreachable

    if isinstance(error, ModelUnknown):
        what = error.message.partition("; ListModels")[0]
        return f"{what}; `ntm models` lists those that the server has"
    server = os.environ.get("NTM_SERVER")
    if isinstance(error, InvalidRequest | Unreachable) and server and server in error.message:
        return f"{error.message}; the variable NTM_SERVER has this address"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, OSError) and _is_of_full_output(error):
        return f"standard output: {error.strerror}"
    return str(error)


def _is_expected(error: Exception) -> bool:
    """Whether an error can occur although the program has no mistake."""
    # Imported here, because the help does not need it.
    from ntm_client.errors import NtmClientError
    from ntm_lab.commands.sequences import SequenceError
    from ntm_lab.outputs import OutputInvalid
    from ntm_lab.recordings.files import RecordingError
    from ntm_tasks import TaskError

    expected = NtmClientError | TaskError | SequenceError | OutputInvalid | RecordingError | OSError
    return isinstance(error, expected)
