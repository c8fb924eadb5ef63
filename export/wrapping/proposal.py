"""
Propose how to step a file, from names and shapes alone, as a description for a human to correct.

Names only suggest. So what was guessed is marked in the text, and nothing of it is taken as true
before it was verified.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from export.wrapping.file import OnnxFile, Size, Tensor

LOOK = "LOOK:"
"""Begins the comment on what the names and shapes do not tell."""

_BATCH = re.compile(r"^(b|bs|n|batch.*|.*batch|.*batch_size)$", re.IGNORECASE)
"""Names of axes that are a batch."""

_GIVEN = re.compile(r"dvec|d_vector|speaker|spk|embed|enrol|style|condition", re.IGNORECASE)
"""In names of inputs that are the same in all steps of a session."""

_PART = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[0-9]+")
"""The words of a name, of which capitals and digits begin new ones."""

_RATES = re.compile(r"^(sr|sample_?rate|fs)$", re.IGNORECASE)
_USUAL_RATE = 16000

_WORDS = (
    "next",
    "new",
    "now",
    "out",
    "output",
    "present",
    "updated",
    "cur",
    "current",
    "n",
    "last",
)
"""What stands beside the name of a state where it goes out."""

_WORDS_IN = ("in", "input", "prev", "previous", "past", "old", "init", "initial", "last", "0", "i")
"""What stands beside the name of a state where it goes in."""


@dataclass(frozen=True)
class Pair:
    """A state's input, and the output that has its next value."""

    input: Tensor
    output: Tensor
    by_name: bool
    """Whether the names tell; else the two are alike in type and shape alone."""


def pairs(inputs: Iterable[Tensor], outputs: Iterable[Tensor]) -> list[Pair]:
    """Return the states that names suggest, and then those that equal types and shapes do."""
    given, made = list(inputs), list(outputs)
    waiting, free = list(given), list(made)
    found: list[Pair] = []
    for closeness in range(3):
        for before in list(waiting):
            matches = [
                after
                for after in free
                if _closeness(before.name, after.name) == closeness and _alike(before, after)
            ]
            if len(matches) == 1:
                found.append(Pair(before, matches[0], by_name=True))
                waiting.remove(before)
                free.remove(matches[0])
    # What comes first is the step's own by custom, however alike.
    waiting = [each for each in waiting if each is not given[0]]
    free = [each for each in free if each is not made[0]]
    for before in waiting:
        alike = [each for each in free if _alike(before, each)]
        rivals = [each for each in waiting if each.shape == before.shape]
        if len(alike) == len(rivals) == 1 and len(before.shape or ()) > 1:
            found.append(Pair(before, alike[0], by_name=False))
    names = [each.name for each in given]
    return sorted(found, key=lambda pair: names.index(pair.input.name))


def proposal(file: OnnxFile, next_command: str) -> str:
    """Return the text of a description, with a comment on every field."""
    states = pairs(file.inputs.values(), file.outputs.values())
    paired = {pair.input.name for pair in states} | {pair.output.name for pair in states}
    others = [each for each in file.inputs.values() if each.name not in paired]
    constants = [each for each in others if each.shape == ()]
    given = [each for each in others if each not in constants and _GIVEN.search(each.name)]
    if len(given) + len(constants) == len(others):
        given = []
    inputs = [each for each in others if each not in (*constants, *given)]
    outputs = [each for each in file.outputs.values() if each.name not in paired]
    batch = _batch_name([*file.inputs.values()])
    parts = [_head(file, next_command)]
    if constants:
        parts.append(_constants(constants))
    parts += [_input(each, batch, first=at == 0) for at, each in enumerate(inputs)]
    parts += [_output(each, batch, first=at == 0) for at, each in enumerate(outputs)]
    parts += [_state(each, batch, first=at == 0) for at, each in enumerate(states)]
    parts += [_given(each, batch) for each in given]
    if not states:
        parts.append(_NO_STATE.format(names=", ".join(file.outputs)))
    return "\n".join(parts)


_NO_STATE = f"""\
# {LOOK} no output looks like the next value of an input. The outputs are {{names}}. For each state:
# [[state]]
# input = "..."       # the file's input
# output = "..."      # the file's output with its next value
# batch_axis = 0
"""


def _head(file: OnnxFile, next_command: str) -> str:
    return f"""\
# How to step {file.path.name}, as its names and shapes suggest. Correct what is wrong, above all
# where a comment begins with {LOOK} Then run
#
#     {next_command}
#
# which compares the result with the file, step by step, before it writes anything.

# What the model is for, in a word or two. Lists of models show it.
task = {_text(file.path.stem)}

# Whether several sessions may be stepped in one run. The command finds out itself whether a row's
# results depend on the others, and says so; false keeps each session alone in any case.
batched = true
"""


def _constants(constants: Iterable[Tensor]) -> str:
    lines = [
        "# Inputs with one value for each step of each session, such as a sample rate. They",
        "# become a part of the graph. A value is a number, a list, or the name of a .npy file.",
        "[constants]",
    ]
    for each in constants:
        rate = bool(_RATES.match(each.name))
        value = str(_USUAL_RATE if rate else "false" if each.type == "bool" else 0)
        lines.append(f"{_key(each.name)} = {value}  # {each}. {LOOK} the value")
    return "\n".join([*lines, ""])


def _input(tensor: Tensor, batch: str | None, *, first: bool) -> str:
    axis = _batch_axis(tensor, batch)
    text = (
        "# What a step takes: a table for each input. Clients give arrays by these names.\n" * first
    )
    text += f"[[input]]\nname = {_text(tensor.name)}  # {tensor} in the file\n"
    text += _shape(tensor, axis, "of one step of one session, without the batch")
    text += _axis(tensor, axis)
    if first:
        text += """\
# Whether the file wants the end of the input before, in front of what is new in a step: how many
# values, and along which axis of `shape`. The server then keeps them as one more state.
# past = 64
# past_axis = 0
# The range of the random values that the file is compared with; without it they are drawn from a
# normal distribution, and whole numbers are 0 or 1.
# draw = [-1.0, 1.0]
"""
    return text


def _output(tensor: Tensor, batch: str | None, *, first: bool) -> str:
    text = "# What a step gives. An output of the file that has no table is left out.\n" * first
    text += f"[[output]]\nname = {_text(tensor.name)}  # {tensor} in the file\n"
    return text + _axis(tensor, _batch_axis(tensor, batch))


def _state(pair: Pair, batch: str | None, *, first: bool) -> str:
    axis = _batch_axis(pair.input, batch)
    text = "# What the server keeps of a session from step to step.\n" * first
    text += f"[[state]]\ninput = {_text(pair.input.name)}  # {pair.input} in the file\n"
    guess = "the next value" if pair.by_name else f"{LOOK} is this the next value? shapes are equal"
    text += f"output = {_text(pair.output.name)}  # {guess}\n"
    text += _shape(pair.input, axis, "of one session, without the batch")
    text += _axis(pair.input, axis)
    if first:
        text += (
            "# What a session starts with: a number for all values, a list of them, the name of a\n"
            '# .npy file beside this one, or "given" if the client has to give it at opening.\n'
        )
    return text + f"initial = {'false' if pair.input.type == 'bool' else '0'}\n"


def _given(tensor: Tensor, batch: str | None) -> str:
    axis = _batch_axis(tensor, batch)
    return (
        f"# {LOOK} is this the same in each step of a session? Otherwise make it an [[input]].\n"
        f"[[state]]\ninput = {_text(tensor.name)}  # {tensor} in the file\n"
        'output = ""  # it keeps its value\n'
        + _shape(tensor, axis, "of one session, without the batch")
        + _axis(tensor, axis)
        + 'initial = "given"  # by the client, when it opens a session\n'
    )


def _shape(tensor: Tensor, batch_axis: int | None, comment: str) -> str:
    if tensor.shape is None:
        return f"shape = [1]  # {comment}. {LOOK} the file does not tell\n"
    sizes = [size for axis, size in enumerate(tensor.shape) if axis != batch_axis]
    open_axes = [str(size) or "?" for size in sizes if isinstance(size, str)]
    look = f". {LOOK} the file leaves {', '.join(open_axes)} open" if open_axes else ""
    shown = ", ".join(str(size) if isinstance(size, int) else "1" for size in sizes)
    return f"shape = [{shown}]  # {comment}{look}\n"


def _axis(tensor: Tensor, axis: int | None) -> str:
    value = '"none"' if axis is None else str(axis)
    shape = tensor.shape or ()
    rivals = [str(at) for at, size in enumerate(shape) if size == 1]
    if axis is None or shape[axis] != 1:
        rivals = []
    look = f". {LOOK} it may be {' or '.join(rivals)}" if len(rivals) > 1 else ""
    return f'batch_axis = {value}  # where the file has the batch; "none" if nowhere{look}\n'


def _batch_name(tensors: Iterable[Tensor]) -> str | None:
    """Return the name of the axis of the batch; "" if files leave it without a name."""
    names = [
        size
        for tensor in tensors
        for size in tensor.shape or ()
        if isinstance(size, str) and _BATCH.match(size)
    ]
    return max(names, key=names.count) if names else None


def _batch_axis(tensor: Tensor, batch: str | None) -> int | None:
    """Guess which axis of a tensor is the batch's."""
    shape: tuple[Size, ...] = tensor.shape or ()
    if batch in shape and batch is not None:
        return shape.index(batch)
    nameless = [axis for axis, size in enumerate(shape) if size == ""]
    if nameless:
        return nameless[0]
    ones = [axis for axis, size in enumerate(shape) if size == 1]
    return ones[0] if ones else None


def _alike(before: Tensor, after: Tensor) -> bool:
    """Whether one tensor can be the next value of another."""
    if before.type != after.type:
        return False
    if before.shape is None or after.shape is None:
        return True
    return len(before.shape) == len(after.shape) and all(
        isinstance(a, str) or isinstance(b, str) or a == b
        for a, b in zip(before.shape, after.shape, strict=True)
    )


def _closeness(before: str, after: str) -> int | None:
    """Return how much two names have to lose until they are the same; None if they differ."""
    names_in, names_out = _stems(before, _WORDS_IN), _stems(after, _WORDS)
    common = names_in.keys() & names_out.keys()
    return min((names_in[name] + names_out[name] for name in common), default=None)


def _stems(name: str, words: Collection[str]) -> dict[str, int]:
    """Return a name in lower case without marks, and without each one of some words in it."""
    parts = [part.lower() for part in _PART.findall(name)]
    found = {"".join(parts): 0}
    for at, part in enumerate(parts):
        if part in words:
            found.setdefault("".join(parts[:at] + parts[at + 1 :]), 1)
    if parts and len(parts[-1]) > 1 and parts[-1][-1] in words:  # such as hn
        found.setdefault("".join(parts)[:-1], 1)
    return {stem: cost for stem, cost in found.items() if stem and not stem.isdigit()}


def _text(value: str) -> str:
    """Return a text as TOML writes it."""
    return json.dumps(value, ensure_ascii=False)


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _text(name)
