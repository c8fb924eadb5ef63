"""`stream`: makes the steps of a file, or of lines as they arrive."""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Annotated, BinaryIO

from ntm_client.blocking import Session
from ntm_client.errors import InvalidRequest, SessionGone, TimedOut
from ntm_client.values import Durability, Float32, Policy
from ntm_lab import vectors
from ntm_lab.commands.interrupts import held_back
from ntm_lab.commands.options import (
    HYPHEN,
    INPUT,
    LOCAL,
    STANDARD,
    EverySteps,
    IdleTimeout,
    Locations,
    ServerOptions,
    Steps,
    Text,
    output,
)
from ntm_lab.commands.reading import ReadAhead
from ntm_lab.commands.sequences import (
    Format,
    SequenceError,
    Writer,
    check_header,
    count,
    format_of,
    read,
    writer,
)
from ntm_lab.outputs import has_content, name_full, replacing

STEPS_AT_ONCE = 256

CALLS_AT_ONCE = 2
"""Of these one is made while the outputs of the one before are written."""

_AT_ONCE_SECONDS = 1.0
"""How long steps on their way are waited for where the command ends at once."""


def stream(
    model: Text | None = None,
    /,
    *,
    input: Annotated[Path, INPUT, HYPHEN] = STANDARD,  # noqa: A002 - the option's name
    format: Format | None = None,  # noqa: A002 - the option's name
    header: bool = False,
    skip: Steps = 0,
    output: Annotated[Path, output(), HYPHEN] = STANDARD,
    output_format: Format | None = None,
    locations: Locations = None,
    durability: Policy | None = None,
    every_steps: EverySteps | None = None,
    idle_timeout: IdleTimeout | None = None,
    session: Text | None = None,
    keep: bool = False,
    server: ServerOptions = LOCAL,
) -> None:
    """
    Make the steps of a file or of standard input, and write their outputs.

    Outputs of lines from standard input appear as the lines arrive, one line for each. If the
    command is interrupted, the outputs so far are kept, and the session stays open until its idle
    timeout; what is printed says how to continue, with another file for the outputs of the rest.
    When no place is left for outputs, the lines that were written are kept, and what is printed
    says how many outputs are lost. Of npy none are kept then.

    Args:
        model: Name of the model; not needed with --session.
        input: File of the steps, - for standard input. A line of csv or jsonl is one step.
        format: Format of the steps; by default that of the file's name, else csv.
        header: Leave out the first line of a csv file, which has names.
        skip: Steps at the start of the input to leave out, because they were made before.
        output: File for the outputs, - for standard output. With --session or --skip it must be
            a new one, because the outputs of earlier steps cannot be made again.
        output_format: Format of the outputs; by default that of the file's name, else the steps'.
        durability: When steps are written to the server's store; by default as the server is set.
        every_steps: With --durability asynchronous, steps between two writings to the store.
        idle_timeout: Seconds without a step after which the session expires, such as those for
            which a sensor pauses; by default as the server is set.
        session: Id of a session to continue. It is not deleted at the end.
        keep: Do not delete the new session at the end.
    """
    layout = format or format_of(input, "--format", "csv")
    check_header(header, layout)
    line_layout: Format = "csv" if output == STANDARD and layout == "npy" else layout
    output_layout = output_format or format_of(output, "--output-format", line_layout)
    if output == STANDARD and output_layout == "npy" and sys.stdout.isatty():
        raise InvalidRequest(
            "npy is no text for a terminal; name a file with --output, or another --output-format"
        )
    if (session is not None or skip) and output != STANDARD and has_content(output):
        raise InvalidRequest(
            f"{output} may have the outputs of earlier steps, which cannot be made again; name "
            "another file with --output"
        )
    with ExitStack() as stack:
        reader = stack.enter_context(ReadAhead(_source(input)))
        # It ends after the client, whose end gives up the steps that nobody waits for any more.
        stepper = stack.enter_context(ThreadPoolExecutor(1, "ntm-step"))
        client = stack.enter_context(server.connect())
        wanted = _durability(durability, every_steps)
        if session is not None:
            steps_of = _continued(client.session(session), model, locations, wanted, idle_timeout)
        elif model is not None:
            expires = None if idle_timeout is None else timedelta(seconds=idle_timeout)
            steps_of = client.create_session(model, locations, expires, durability=wanted)
        else:
            raise InvalidRequest("name a model, or a session to continue with --session")
        stays = keep or session is not None
        kept = stack.enter_context(_ended(steps_of, stepper, skip, output, keep=stays))
        sink = stack.enter_context(_outputs(output, output_layout, kept))
        done = stack.enter_context(_progress(input, layout, header, skip, output))
        # A line from a pipe is made as soon as it is there; those of a file come many at once.
        at_once = STEPS_AT_ONCE if input.is_file() else 1
        vectors.check(steps_of.model)
        width = steps_of.model.input_width
        name = "standard input" if input == STANDARD else str(input)
        blocks = _after(skip, read(reader.file, name, layout, width, at_once, header))
        reader.begin(blocks, STEPS_AT_ONCE // at_once)
        for steps in reader:
            with held_back() as caught:
                for outputs in _made(steps_of, stepper, steps, reader, caught):
                    sink.write(outputs)
                    done(len(outputs))
        # A pipe that ends at once is no mistake, but a number of steps that it does not have is.
        if not sink.steps and (skip or input != STANDARD):
            raise SequenceError(f"{name} has no steps{f' after {skip}' if skip else ''}")


def _made(
    session: Session,
    stepper: ThreadPoolExecutor,
    steps: Float32 | None,
    reader: ReadAhead,
    caught: Sequence[int],
) -> Iterator[Float32]:
    """
    Make steps, and those that are read meanwhile, until none wait or a signal was caught.

    Yields their outputs in order. The server makes the next steps while the caller has them. After
    an error no later steps are made.
    """
    ahead: deque[Future[Float32]] = deque()
    while steps is not None or ahead:
        if steps is not None:
            last = ahead[-1] if ahead else None
            ahead.append(stepper.submit(_step, session, steps, last))
        if steps is None or len(ahead) == CALLS_AT_ONCE:
            yield ahead.popleft().result()
        steps = None if caught else reader.take()


def _step(session: Session, steps: Float32, last: Future[Float32] | None) -> Float32:
    """Make steps if those before them, which have ended, did not fail."""
    if last is not None:
        last.result()
    outputs: Float32 = session.step(steps).array
    return outputs


@contextmanager
def _progress(
    source: Path, layout: Format, header: bool, skip: int, output: Path
) -> Iterator[Callable[[int], None]]:
    """
    Show a bar on standard error, if that is a terminal and nothing else is written to it.

    The block calls what it gets with each number of steps that were made.
    """
    is_seen = output.is_char_device() if output != STANDARD else sys.stdout.isatty()
    is_typed = source == STANDARD and sys.stdin.isatty()
    if not sys.stderr.isatty() or is_seen or is_typed:
        yield lambda steps: None
        return
    # Here, because it takes as long to load as the rest of the command's own modules.
    from rich import progress as bars
    from rich.console import Console

    total = count(source, layout, header)
    rest = None if total is None else max(0, total - skip)
    columns = (
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        bars.TextColumn("steps, {task.fields[rate]} a second"),
        bars.TimeRemainingColumn(),
    )
    begun = time.monotonic()
    # Standard output may be a file or a pipe, which is written past sys.stdout.
    with bars.Progress(
        *columns, console=Console(stderr=True), redirect_stdout=False, redirect_stderr=False
    ) as progress:
        task = progress.add_task("", total=rest, rate="-")

        def done(steps: int) -> None:
            made = progress.tasks[0].completed + steps
            rate = f"{made / (time.monotonic() - begun):,.0f}"
            progress.update(task, completed=made, rate=rate)

        yield done


def _continued(
    session: Session,
    model: str | None,
    locations: int | None,
    durability: Durability | None,
    idle_timeout: float | None,
) -> Session:
    """Return the session if it is as asked for. Raises InvalidRequest if it is not."""
    if durability is not None and durability != session.durability:
        raise InvalidRequest(
            f"session {session.id} has the durability {session.durability.policy}, not "
            f"{durability.policy}, and keeps it; leave out --durability"
        )
    if model not in (None, session.model.name):
        raise InvalidRequest(
            f"session {session.id} runs {session.model.name}, not {model}; leave out the model"
        )
    if locations not in (None, session.locations):
        raise InvalidRequest(
            f"session {session.id} has {session.locations} locations, not {locations}; leave out "
            "--locations"
        )
    if idle_timeout is not None:
        kept = session.describe().idle_timeout
        if kept != timedelta(seconds=idle_timeout):
            raise InvalidRequest(
                f"session {session.id} has an idle timeout of {kept.total_seconds():g} s, not "
                f"{idle_timeout:g} s, and keeps it; leave out --idle-timeout"
            )
    return session


def _durability(policy: Policy | None, every_steps: int | None) -> Durability | None:
    if every_steps and policy != "asynchronous":
        raise InvalidRequest("--every-steps goes with --durability asynchronous")
    return None if policy is None else Durability(policy, every_steps or 0)


def _source(path: Path) -> AbstractContextManager[BinaryIO]:
    return nullcontext(sys.stdin.buffer) if path == STANDARD else path.open("rb")


def _after(skip: int, blocks: Iterator[Float32]) -> Iterator[Float32]:
    """Leave out the first steps."""
    for steps in blocks:
        if skip < len(steps):
            yield steps[skip:]
        skip = max(0, skip - len(steps))


@contextmanager
def _ended(
    session: Session, stepper: ThreadPoolExecutor, skip: int, output: Path, keep: bool
) -> Iterator[list[int]]:
    """
    Delete the session at the end, unless it is kept, or can be continued after an error.

    The block adds the number of outputs to the list when they are safe.
    """
    kept: list[int] = []
    first = session.next_step
    skipped = lost = 0
    is_known = True
    with ExitStack() as stack:
        stack.enter_context(session)
        try:
            yield kept
        except BaseException as error:
            # A second signal ends at once: it waits only for a server that answers.
            has_ended = _end(stepper, None if isinstance(error, Exception) else _AT_ONCE_SECONDS)
            is_known = has_ended and not isinstance(error, TimedOut)
            stepped = session.next_step - first
            skipped = skip + stepped
            lost = stepped - sum(kept)
            # Whoever closed the pipe wants no more steps, and a lost session takes none.
            is_closed = isinstance(error, BrokenPipeError)
            keep = keep or (bool(kept) and not is_closed)
            keep = keep and not isinstance(error, SessionGone)
            if lost and (keep or (isinstance(error, OSError) and not is_closed)):
                _say_what_is_lost(sum(kept), lost)
            raise
        finally:
            if keep:
                stack.pop_all()
                _say_how_to_continue(session, skipped, lost, output, is_known=is_known)


def _end(stepper: ThreadPoolExecutor, seconds: float | None) -> bool:
    """Begin no more steps; return whether those on their way were answered within this time."""
    ending = threading.Thread(target=stepper.shutdown, kwargs={"cancel_futures": True}, daemon=True)
    ending.start()
    ending.join(seconds)
    return not ending.is_alive()


def _say_what_is_lost(kept: int, lost: int) -> None:
    which = (
        f"the first {kept} outputs are kept, the last {lost} are"
        if kept
        else f"no outputs are kept, {lost} are"
    )
    print(
        f"{which} lost: their steps were made, and the session cannot make them again; if you need "
        "them, begin again in a new session, without --session and --skip",
        file=sys.stderr,
    )


def _say_how_to_continue(
    session: Session, skip: int, lost: int, output: Path, *, is_known: bool
) -> None:
    """
    `skip` is the number of steps of an input that was interrupted; else it is 0. `is_known` says
    whether each step was answered.
    """
    without = " without the lost outputs" if lost else ""
    options = f"--session {session.id}{f' --skip {skip}' if skip else ''}"
    other = "" if output == STANDARD else f", and another --output than {output}"
    if is_known:
        found = f"next step {session.next_step}; continue{without} with {options}{other}"
    else:
        found = (
            f"next step {session.next_step} or later: the server may have made steps that it has "
            "not answered, whose outputs are lost; `ntm sessions` shows the next step. Continue "
            f"with {options}{other}, where --skip is larger by each step after {session.next_step}"
        )
    print(found, file=sys.stderr)


@contextmanager
def _outputs(path: Path, layout: str, kept: list[int]) -> Iterator[Writer]:
    """
    Write outputs to standard output or to a file, and add their number to `kept` at the end.

    After an error the file has the outputs so far. Without any, an older file stays as it was.
    """
    failure: BaseException | None = None
    with nullcontext(sys.stdout.buffer) if path == STANDARD else replacing(path) as file:
        sink = writer(file, layout)
        try:
            yield sink
        except BaseException as error:
            if not sink.steps:
                raise
            failure = error
        sink.close()
    if sink.steps:
        kept.append(sink.steps)
    if failure is not None:
        if path != STANDARD:
            name_full(failure, path)
        raise failure
