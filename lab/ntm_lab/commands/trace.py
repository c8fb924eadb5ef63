"""`trace`: draws what the heads do over time."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Annotated

import numpy as np

from ntm_client.errors import InvalidRequest
from ntm_client.values import Float32, Model
from ntm_lab import vectors
from ntm_lab.commands.options import (
    INPUT,
    LOCAL,
    MAX_SIZE,
    Locations,
    Seed,
    ServerOptions,
    Sizes,
    TaskSource,
    Text,
    output,
)
from ntm_lab.commands.sequences import Format, SequenceError, check_header, format_of, read
from ntm_lab.commands.tasks import check_task
from ntm_lab.pictures import figure, page
from ntm_lab.pictures.characters import recording_picture
from ntm_lab.pictures.terminal import Terminal
from ntm_lab.recordings import files
from ntm_lab.recordings.recording import record, record_task
from ntm_tasks import Size, Task, TaskSequence, load


def trace(
    model: Text | None = None,
    /,
    *,
    size: Sizes = (),
    seed: Seed | None = None,
    input: Annotated[Path | None, INPUT] = None,  # noqa: A002 - the option's name
    header: bool = False,
    task: TaskSource = None,
    locations: Locations = None,
    open: Annotated[Path | None, INPUT] = None,  # noqa: A002 - the option's name
    save: Annotated[Path | None, output(".npz")] = None,
    png: Annotated[Path | None, output(".png")] = None,
    svg: Annotated[Path | None, output(".svg")] = None,
    html: Annotated[Path | None, output(".html", ".htm")] = None,
    server: ServerOptions = LOCAL,
) -> None:
    """
    Draw what the heads do over time, and the memory before and after.

    Args:
        model: Name of the model; not needed with --open.
        size: Size of a random sequence of the task, such as 20; the largest in training by default.
        seed: Seed of that sequence; random by default.
        input: Steps to trace instead: .npy, .csv or .jsonl.
        header: Leave out the first line of a csv file, which has names.
        open: Draw the recording in this file, which --save wrote; needs no server.
        save: Keep the recording, as .npz.
        png: Also draw a picture into this file.
        svg: Also draw a picture into this file, for a page or a paper.
        html: Also write a page to this file, in which a reader moves along time.
    """
    if input and (size or seed is not None):
        raise InvalidRequest("--size and --seed are of a random sequence, not of --input")
    if task and (input or open):
        raise InvalidRequest("--task is of a random sequence, not of --input or --open")
    if header and not input:
        raise InvalidRequest("--header is of the steps of --input")
    if open:
        if size or any(value is not None for value in (model, input, seed, locations)):
            raise InvalidRequest("--open draws a recording as it is; name only where to draw it")
        recording = files.load(open)
    elif model:
        drawn = load(task) if task else None
        layout = format_of(input, "--input a file that ends in", "csv") if input else "csv"
        check_header(header, layout)
        with server.connect() as client, client.create_session(model, locations) as session:
            if input:
                recording = record(session, _steps(input, layout, session.model, header))
            else:
                sequence = _task_sequence(session.model, drawn, size or None, seed)
                recording = record_task(session, sequence)
    else:
        raise InvalidRequest("name a model, or a recording with --open")
    print(f"{recording.title}\n\n{recording_picture(recording, Terminal.of(sys.stdout))}")
    if result := recording.result():
        print(f"\n{result}")
    if save:
        files.save(recording, save)
        print(f"\nsaved to {save}")
    for kind, path in (("png", png), ("svg", svg)):
        if path:
            figure.save(recording, path, kind)
            print(f"\ndrawn to {path}")
    if html:
        page.save(recording, html)
        print(f"\ndrawn to {html}")


def _task_sequence(
    model: Model, task: Task | None, size: Size | None, seed: int | None
) -> TaskSequence:
    check_task(model, task, "or steps with --input")
    if size and math.prod(size) > MAX_SIZE:
        raise InvalidRequest(f"--size is {size}; the product of the sizes is at most {MAX_SIZE}")
    return TaskSequence.draw(model.task, size, seed)


def _steps(path: Path, layout: Format, model: Model, header: bool) -> Float32:
    vectors.check(model)
    with path.open("rb") as file:
        blocks = list(read(file, str(path), layout, model.input_width, 1000, header))
    if not blocks:
        raise SequenceError(f"{path} has no steps; give at least one")
    return np.concatenate(blocks)
