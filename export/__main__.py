"""The command line `ntm-export`, and its twin `python -m export`."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from types import FrameType

DISAGREED, FAILED = 1, 2
"""
Exit statuses of a command that came to its end with the answer no, and of one that met an error.
"""


def _say(message: str) -> None:
    print("ntm-export:", *message.split(), file=sys.stderr)


def _missing(error: ImportError) -> str:
    return (
        f"{error.name} cannot be loaded ({error}), and the trainer needs it; to install the "
        "trainer, run `pip install ./client ./tasks . ./export` in a checkout of the project"
    )


try:
    from cyclopts import App, CycloptsError, Parameter
except ImportError as _error:
    _say(_missing(_error))
    sys.exit(FAILED)


SUMMARIES = {
    "train": "Train a network on a task; again, to go on from the last checkpoint.",
    "sweep": "Run a list of trainings; again, to skip those that are finished.",
    "export": "Write the best of the trained networks as a model to serve.",
    "evaluate": "Measure an exported model, and compare the result with its card.",
    "report": "Compare all models with each other and with the paper.",
    "module": "Write a PyTorch module of your own as a model to serve.",
    "wrap": "Write an ONNX file of somebody's as a model to serve.",
    "triton": "Write a model to serve as a model repository of Triton.",
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
    suppress_keyboard_interrupt=False,  # `main` says how to go on
)
app.register_install_completion_command(help="Complete commands and options in this shell.")
PLACES = {
    "module": "export.modules.command",
    "wrap": "export.wrapping.command",
    "triton": "export.triton.command",
}
"""Modules of the commands that are not in `export.commands`."""

for _name, _summary in SUMMARIES.items():
    _place = PLACES.get(_name, f"export.commands.{_name}")
    app.command(f"{_place}:{_name}", name=_name, help=_summary)

imports = App("import", help="Write a network that others trained as a model to serve.")
imports.command(
    "export.pytorch_ntm.command:pytorch_ntm",
    name="pytorch-ntm",
    help="Write a checkpoint of loudinthecloud/pytorch-ntm as a model to serve.",
)
app.command(imports)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal may not have every character
    # gRPC's core would write lines of its own beside the sentence about a failed connection.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        with _signals_raised():
            from ntm import versions

            versions.check()  # before torch and onnx load protobuf, each with an error of its own
            app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        chain = " ".join(("ntm-export", *(error.command_chain or ())))
        stop = "" if str(error).endswith((".", "?")) else "."
        _say(f"{error}{stop} See `{chain} --help`.")
        return FAILED
    except KeyboardInterrupt as error:
        given = sys.argv[1:] if arguments is None else arguments
        goes_on = [*given[:1]] in (["train"], ["sweep"])
        then = "; the same command goes on from the last checkpoint, if there is one" * goes_on
        print(f"stopped{then}", file=sys.stderr)
        return 128 + (error.args[0] if error.args else signal.SIGINT)
    except ImportError as error:
        # Cyclopts hides the error of a command's module behind one of its own.
        cause = error.__cause__ if isinstance(error.__cause__, ImportError) else error
        if (cause.name or "").partition(".")[0] == "export":
            raise
        # One without a name is of `ntm.versions`, and says itself what to install.
        _say(_missing(cause) if cause.name else str(cause))
        return FAILED
    except Exception as error:
        message = _expected(error)
        if message is None:
            raise
        _say(message)
        return DISAGREED if isinstance(error, ArithmeticError) else FAILED
    return 0


@contextmanager
def _signals_raised() -> Iterator[None]:
    """
    Let SIGTERM and SIGHUP end the block as Ctrl-C does, so that it leaves nothing half written.

    A signal that is ignored, as under nohup, stays ignored. Windows has no SIGHUP.
    """

    def end(number: int, _: FrameType | None) -> None:
        raise KeyboardInterrupt(number)

    names = ("SIGTERM", "SIGHUP")
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    if threading.current_thread() is not threading.main_thread():
        numbers = []  # Python gives other threads no signals
    before = {
        number: signal.signal(number, end)
        for number in numbers
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def _expected(error: Exception) -> str | None:
    """Return what to say of an error that can occur although the program has no mistake."""
    from ntm_client.errors import NtmClientError
    from service.errors import NtmError

    # numpy's, PyTorch's on the CPU and on a GPU
    if isinstance(error, MemoryError) or any(
        words in str(error) for words in ("DefaultCPUAllocator", "CUDA out of memory")
    ):
        return "there is not enough memory; take a smaller batch, memory, network or size"
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, ValueError | OSError | ArithmeticError | NtmClientError | NtmError):
        return str(error)
    return None


if __name__ == "__main__":
    sys.exit(main())
