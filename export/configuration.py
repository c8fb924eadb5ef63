"""The settings of a training."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from typing import Any, NamedTuple, get_type_hints

import numpy as np

from export.architectures import ARCHITECTURES
from export.network import Sizes
from export.ntm import INITIAL_MEMORIES, LEARNED, PREACTIVATION_LIMIT
from ntm_tasks import TASKS, Purpose, Size, Task, size_text

MAX_LOCATIONS = 16_384
"""The most memory locations of a session that a server allows, unless its settings allow more."""

MAX_SIZE = 10_000
"""The largest number in the size of a sequence."""

MAX_SEQUENCES = 1_000_000
"""The largest number of sequences of a trial."""

METRICS = {
    "validation_bits": -1,
    "trials_passed": 1,
    "bits_per_sequence": -1,
    "wrong_bits": -1,
}
"""The columns of the training curve by which a training can end early; 1 where more is better."""

_MANY = 1_000_000_000


class Trial(NamedTuple):
    """A test of a network: a number of sequences of one size, at N locations."""

    size: Size
    locations: int
    sequences: int

    def __str__(self) -> str:
        """Return the trial as `--set` takes it, such as 20:128:64."""
        return f"{size_text(self.size)}:{self.locations}:{self.sequences}"


_TRIAL = "[0-9]{1,100}(x[0-9]{1,100})*:[0-9]{1,100}:[0-9]{1,100}"

_TEXTS = {
    int: (re.compile(r"-?[0-9]{1,100}"), "a whole number"),
    float: (re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?", re.I), "a finite number"),
    bool: (re.compile("True|False"), "True or False"),
    str: (re.compile(".*", re.S), "a text"),
    tuple[int, ...]: (re.compile("-?[0-9]{1,100}(,-?[0-9]{1,100})*"), "N or N,N,..."),
    tuple[Trial, ...]: (
        re.compile(f"{_TRIAL}(,{_TRIAL})*"),
        "SIZE:LOCATIONS:SEQUENCES, such as 20:128:64, with commas between several",
    ),
}
"""How each type of a setting is written, and its name in errors."""


def _setting(
    default: Any = MISSING,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple[str, ...] = (),
    of_memory: bool = False,
) -> Any:
    """
    Declare a setting with its limits, which hold for each number of several.

    A setting of the memory stays at its default in a network without one.
    """
    limits = {"minimum": minimum, "maximum": maximum, "choices": choices, "of_memory": of_memory}
    return field(default=default, kw_only=default is MISSING, metadata=limits)


@dataclass(frozen=True)
class Configuration:
    """The settings of a training run, besides its seed."""

    task: str
    architecture: str
    controller_size: int = _setting(minimum=1, maximum=16_384)
    layers: int = _setting(1, minimum=1, maximum=64)
    read_heads: int = _setting(1, minimum=0, maximum=64, of_memory=True)
    write_heads: int = _setting(1, minimum=0, maximum=64, of_memory=True)
    locations: tuple[int, ...] = _setting((128,), minimum=0, maximum=MAX_LOCATIONS)
    """
    N in training: each update draws one of these.

    If N is little more than a sequence fills, a head that wanders meets what it wrote and learns to
    avoid it, as longer sequences require. With two sizes, a network cannot rely on a ring of one
    size.
    """
    default_locations: int = _setting(128, minimum=0, maximum=MAX_LOCATIONS)
    """N of a served session that sets none. 0 for a network without memory."""
    memory_width: int = _setting(20, minimum=1, maximum=1024, of_memory=True)
    initial_memory: str = _setting("constant", choices=(*INITIAL_MEMORIES, LEARNED), of_memory=True)
    """A key of `ntm.INITIAL_MEMORIES`, or "learned", which fixes N."""
    gate_bias: float = _setting(
        -3.0, minimum=-PREACTIVATION_LIMIT, maximum=PREACTIVATION_LIMIT, of_memory=True
    )
    """
    The initial bias of every gate of a head. Below zero, heads start by shifting, not by content.

    With 0, copying heads learned to find their places by content, which fails beyond the lengths
    trained on.
    """
    optimiser: str = _setting("adam", choices=("adam", "rmsprop"))
    """"adam", or "rmsprop" as in the paper."""
    learning_rate: float = _setting(1e-3, minimum=1e-9, maximum=10)
    decay: float = _setting(0.5, minimum=0, maximum=1)
    """The last share of the updates, in which the learning rate falls linearly to zero."""
    adam_epsilon: float = _setting(1e-5, minimum=1e-12, maximum=1)
    """
    Adam divides by the root of the mean squared gradient plus this.

    Once a task is learned, all gradients are tiny except those of rare sequences. Without this
    floor, these would move every parameter by several learning rates. The paper's RMSProp has such
    a floor too.
    """
    clip_norm: float = _setting(0.05, minimum=0, maximum=1e6)
    """
    The largest norm of a gradient; longer ones are shortened to it. 0 shortens none.

    Sharp heads make the norms of gradients differ by orders of magnitude, so that a few batches
    would dominate. With this limit, most batches count alike until the task is learned.
    """
    clip_ratio: float = _setting(0.0, minimum=0, maximum=1e6)
    """
    The largest norm of a gradient over the typical norm (a running mean of the shortened norms).

    0 leaves the limit at `clip_norm`; 1 or more replaces it after the first update. It
    follows gradients over any range of norms. But once a task is learned, the gradient of a rare
    mistake counts no more than any other, so rare mistakes stay.
    """
    clip_value: float = _setting(0.0, minimum=0, maximum=1e6)
    """The largest absolute component of a gradient; larger ones are clipped. 0 clips none."""
    batch: int = _setting(32, minimum=1, maximum=65_536)
    blank_rate: float = _setting(0.0, minimum=0, maximum=1)
    """The share of the vectors in training that are made zero: see the task."""
    expected_targets: bool = _setting(False)
    """
    Train towards the probabilities of the optimal predictor, where the task has them.

    They are the expectations of the targets, given the sequence so far. So the gradient has the
    same expectation as with drawn targets, without their noise.
    """
    curriculum: int = _setting(0, minimum=0, maximum=_MANY)
    """
    The number of successful updates in which sizes grow from the task's easiest to its largest.

    An update is successful if it costs at most `curriculum_cost`. 0 starts with all sizes.
    """
    curriculum_cost: float = _setting(0.4, minimum=0, maximum=1e6)
    """In bits for each target bit. Guessing costs 1."""
    relapse_bits: float = _setting(0.0, minimum=0, maximum=1e9)
    """
    The bits of the first trial of validation from which a run is checked for a relapse.

    A run that costs more, and much more than at its best, goes back to its last checkpoint with
    half the learning rate. 0 never does.
    """
    updates: int = _setting(6000, minimum=1, maximum=_MANY)
    report_every: int = _setting(100, minimum=1, maximum=_MANY)
    """Updates between two points of the curve. Each point has a validation and a checkpoint."""
    validation: tuple[Trial, ...] = _setting()
    """
    In rising order of difficulty. A trial runs only if all before it passed.

    The best network of a run is chosen by them, so that there has to be one: the one with the most
    trials passed, and of these the one with the fewest bits in the next.
    """
    pass_bits: float = _setting(0.0, minimum=0, maximum=1e9)
    """
    The most bits of a sequence with which a trial of `validation` or `choice` passes.

    0 asks for no wrong bit instead. With it, networks that are good enough in range are chosen by
    how they do beyond it.
    """
    choice: tuple[Trial, ...] = _setting(())
    """
    As `validation`, for the choice of one of several seeds when they are exported.

    A mistake of one sequence in a hundred is not seen by a trial that is short enough to run at
    each point of the curve. Without these trials, those of validation choose. The sequences are the
    same for all seeds, where in validation each has its own.
    """
    evaluation: tuple[Trial, ...] = _setting(())
    """The trials on the card."""
    stop_metric: str = _setting("validation_bits", choices=tuple(METRICS))
    """
    The column of the training curve that `stop_patience` watches.

    It is one of `METRICS`. More of `trials_passed` is better; less of all others.
    """
    stop_patience: int = _setting(0, minimum=0, maximum=_MANY)
    """
    The number of points of the curve in a row that are no better than the best before them, after
    which the training ends early. 0 makes all updates.
    """

    @property
    def name(self) -> str:
        """The name of the model, TASK-ARCHITECTURE."""
        return f"{self.task}-{self.architecture}"

    @property
    def has_learned_memory(self) -> bool:
        """Whether the memory starts from parameters, so that the network has only one N."""
        has_memory = ARCHITECTURES[self.architecture].has_memory
        return has_memory and self.initial_memory == LEARNED

    @property
    def sizes(self) -> Sizes:
        """The sizes of the network."""
        task = TASKS[self.task]
        return Sizes(
            task.input_width,
            task.output_width,
            self.controller_size,
            self.layers,
            self.read_heads,
            self.write_heads,
            self.memory_width,
            self.gate_bias,
            self.initial_memory,
            self.default_locations,
        )

    def __post_init__(self) -> None:
        """
        Check every setting, and that they fit each other, the task and the architecture.

        Raises:
            ValueError: they do not; the message names the setting, its value and what it must be.
        """
        if self.task not in TASKS:
            raise self._error("task", f"it must be {' or '.join(TASKS)}")
        if self.architecture not in ARCHITECTURES:
            raise self._error("architecture", f"it must be {' or '.join(ARCHITECTURES)}")
        for setting in fields(self):
            self._check(setting)
        for name, allowed in ARCHITECTURES[self.architecture].allows.items():
            if getattr(self, name) not in allowed:
                wanted = " or ".join(map(str, allowed))
                raise self._error(name, f"it must be {wanted}, since it is a {self.architecture}")
        self._check_memory()
        self._check_trials()
        if 0 < self.clip_ratio < 1:
            raise self._error(
                "clip_ratio", "it must be 0 or at least 1, or gradients would vanish step by step"
            )
        if self.expected_targets and not _has_optimum(TASKS[self.task]):
            raise self._error(
                "expected_targets", f"it must be False, since {self.task} has no optimal predictor"
            )

    def _check(self, setting: Field[Any]) -> None:
        """Raise ValueError for a value of another type, or beyond the limits of the setting."""
        name, value = setting.name, getattr(self, setting.name)
        if not _is_of_type(value, _KINDS[name]):
            raise self._error(name, f"it must be {_TEXTS[_KINDS[name]][1]}")
        limits = setting.metadata
        if limits.get("choices") and value not in limits["choices"]:
            raise self._error(name, f"it must be {' or '.join(limits['choices'])}")
        minimum, maximum = limits.get("minimum"), limits.get("maximum")
        for number in value if isinstance(value, tuple) else (value,):
            # Written so that NaN fails.
            if minimum is not None and not number >= minimum:
                raise self._error(name, f"it must be at least {minimum}")
            if maximum is not None and not number <= maximum:
                raise self._error(name, f"it must be at most {maximum}")

    def _check_memory(self) -> None:
        """Raise ValueError for numbers of locations or heads that the network cannot have."""
        if not self.locations:
            raise self._error("locations", "it must have a number")
        if not ARCHITECTURES[self.architecture].has_memory:
            for name in ("locations", "default_locations"):
                if getattr(self, name) not in (0, (0,)):
                    raise self._error(
                        name, f"it must be 0, since {self.architecture} has no memory"
                    )
            for setting in fields(self):
                if setting.metadata.get("of_memory") and (
                    getattr(self, setting.name) != setting.default
                ):
                    raise self._error(
                        setting.name,
                        f"it must be {setting.default}, since {self.architecture} has no memory",
                    )
            return
        for name in ("locations", "default_locations", "read_heads", "write_heads"):
            value = getattr(self, name)
            if 0 in (value if isinstance(value, tuple) else (value,)):
                raise self._error(name, f"{self.architecture} has a memory, so it must be above 0")
        initial = INITIAL_MEMORIES.get(self.initial_memory)
        if initial and initial.rule == "positional" and self.memory_width < 2 * len(initial.values):
            raise self._error(
                "memory_width",
                f"it must be at least {2 * len(initial.values)}, since initial_memory is "
                f"{self.initial_memory}",
            )
        if self.has_learned_memory and self.locations != (self.default_locations,):
            raise self._error(
                "locations",
                f"it must be default_locations, which is {self.default_locations}, since "
                f"initial_memory is {LEARNED}",
            )

    def _check_trials(self) -> None:
        """Raise ValueError for trials that the task or the memory does not allow."""
        if not self.validation:
            raise self._error("validation", "it must have a trial, to choose the best network by")
        task = TASKS[self.task]
        purposes = {
            "validation": Purpose.VALIDATION,
            "choice": Purpose.VALIDATION,
            "evaluation": Purpose.EVALUATION,
        }
        for name, purpose in purposes.items():
            for trial in getattr(self, name):
                problem = size_problem(task, trial.size)
                if not problem:
                    available = task.available(purpose, trial.size)
                    limit = MAX_SEQUENCES if available is None else available
                    if not 1 <= trial.sequences <= limit:
                        problem = f"sequences must be from 1 to {limit}"
                if not problem:
                    problem = self._problem_of(trial.locations)
                if problem:
                    raise self._error(name, f"in {trial}, {problem}")

    def _problem_of(self, locations: int) -> str:
        """Return what is wrong with a trial at this number of locations, or nothing."""
        if not ARCHITECTURES[self.architecture].has_memory:
            return "" if not locations else "locations must be 0, since there is no memory"
        if self.has_learned_memory and locations != self.default_locations:
            return (
                f"locations must be {self.default_locations}, as default_locations, since "
                f"initial_memory is {LEARNED}; give validation, choice and evaluation such trials"
            )
        if not 1 <= locations <= MAX_LOCATIONS:
            return f"locations must be from 1 to {MAX_LOCATIONS}"
        return ""

    def _error(self, name: str, problem: str) -> ValueError:
        text = _text(getattr(self, name))
        return ValueError(f"{self.task}-{self.architecture}: {name} is {text}; {problem}")

    def with_settings(self, settings: Mapping[str, str]) -> Configuration:
        """
        Return a copy with some settings replaced. The values are text.

        Raises:
            ValueError: a name is not a setting, a value cannot be read, or the settings do not fit
                each other.
        """
        values = {}
        for name, text in settings.items():
            if name not in SETTINGS:
                raise ValueError(
                    f"{name!r} is not a setting that can be replaced; there are "
                    f"{', '.join(SETTINGS)}"
                )
            values[name] = _read(name, text)
        return replace(self, **values)


def differences(here: Configuration, there: Configuration) -> dict[str, str]:
    """Return what differs between two configurations: by setting, both values as text."""
    values = {name: (getattr(there, name), getattr(here, name)) for name in _KINDS}
    return {
        name: f"{name} is {_text(one)} there, and {_text(other)} here"
        for name, (one, other) in values.items()
        if one != other
    }


def size_problem(task: Task, size: Size) -> str:
    """Return why a task has no sequences of a size, or nothing."""
    problem = task.size_problem(size)
    if not problem and any(number > MAX_SIZE for number in size):
        names = " and ".join(task.size_names)
        problem = f"{names} must be at most {MAX_SIZE}, not {size_text(size)}"
    return problem


def _has_optimum(task: Task) -> bool:
    return task.generate(np.random.default_rng(0), 1, task.least).optimum is not None


_KINDS: dict[str, Any] = get_type_hints(Configuration)
"""The type of each setting by name."""

SETTINGS = tuple(name for name in _KINDS if name not in ("task", "architecture"))
"""The settings that can be replaced."""


def _is_of_type(value: object, kind: Any) -> bool:
    if kind == tuple[int, ...]:
        return isinstance(value, tuple) and all(type(each) is int for each in value)
    if kind == tuple[Trial, ...]:
        return isinstance(value, tuple) and all(_is_trial(each) for each in value)
    return type(value) is kind or (kind is float and type(value) is int)


def _is_trial(value: object) -> bool:
    return isinstance(value, Trial) and _is_of_type(
        (*value.size, value.locations, value.sequences), tuple[int, ...]
    )


def _read(name: str, text: str) -> Any:
    """Return the value of a setting. Raises ValueError if the text is none."""
    kind = _KINDS[name]
    pattern, described = _TEXTS[kind]
    if not pattern.fullmatch(text):
        raise ValueError(f"{name} is {text[:80]!r}; it must be {described}")
    if kind == tuple[int, ...]:
        return tuple(int(number) for number in text.split(","))
    if kind == tuple[Trial, ...]:
        return tuple(_read_trial(name, part) for part in text.split(","))
    return text == "True" if kind is bool else kind(text)


def _read_trial(name: str, text: str) -> Trial:
    size, locations, sequences = text.split(":")
    return Trial(read_size(size), int(locations), int(sequences))


def read_size(text: str) -> Size:
    """Return a size that is written as `size_text` writes it. Raises ValueError if it is not."""
    if not re.fullmatch("[0-9]{1,100}(x[0-9]{1,100})*", text):
        raise ValueError(f"{text[:80]!r} is not a size, such as 20 or 10x20")
    return tuple(map(int, text.split("x")))


def _text(value: object) -> str:
    """Return a value of a setting as `--set` takes it."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ",".join(map(str, value)) or "empty"
    return str(value) if isinstance(value, int | float) else repr(value)
