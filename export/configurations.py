"""Every hyper-parameter of every (task, architecture), in one table."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from export.network import Sizes
from export.tasks import TASKS


class Trial(NamedTuple):
    """A test of a network: so many sequences of one length, at a number of locations."""

    length: int
    locations: int
    sequences: int


@dataclass(frozen=True)
class Configuration:
    """What a training run is made from, besides its seed. The optimiser is Adam."""

    task: str
    architecture: str
    controller_size: int
    layers: int = 1
    read_heads: int = 1
    write_heads: int = 1
    locations: int = 128
    memory_width: int = 20
    gate_bias: float = -3.0
    """
    Where the bias of every gate starts: below zero, heads start by shifting, not by content.

    Started at 0, copying heads learned to hold their places by content, which fails beyond the
    lengths trained on.
    """
    learning_rate: float = 1e-3
    """Constant for the first half of the updates, then falling in a line to zero."""
    adam_epsilon: float = 1e-8
    """
    Adam divides by the root of the mean squared gradient plus this.

    Once a task is learned, gradients are tiny but for rare sequences; without a floor, one of those
    then moves every parameter by several learning rates and can undo everything.
    """
    clip_norm: float = 0.2
    """Longest gradient that passes unshortened."""
    batch: int = 32
    blank_rate: float = 0.0
    """Part of the vectors in training that are made zero: see the task."""
    updates: int = 6000
    report_every: int = 100
    """Updates between two points of the curve, each with a validation and a checkpoint."""
    validation: tuple[Trial, ...] = ()
    """In rising difficulty: each is run only while those before it pass without a wrong bit."""
    evaluation: tuple[Trial, ...] = ()
    """What the card reports."""

    @property
    def name(self) -> str:
        """TASK-ARCHITECTURE, the model's name."""
        return f"{self.task}-{self.architecture}"

    @property
    def sizes(self) -> Sizes:
        """What the network's parameters are made from."""
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
        )

    def with_settings(self, settings: dict[str, str]) -> Configuration:
        """
        The same with some numbers replaced, each given as text.

        Raises:
            ValueError: a name is not that of a number here, or a text is no such number.
        """
        values: dict[str, int | float] = {}
        for name, text in settings.items():
            current = getattr(self, name, None)
            if not isinstance(current, int | float):
                raise ValueError(f"{name!r} is not a number of the configuration")
            values[name] = type(current)(text)
        return replace(self, **values)  # type: ignore[arg-type]  # their types were just checked


COPY_VALIDATION = (Trial(20, 128, 64), Trial(120, 128, 32), Trial(1000, 1024, 16))
COPY_EVALUATION = (Trial(20, 128, 200), Trial(120, 128, 200), Trial(1000, 1024, 200))

CONFIGURATIONS = {
    configuration.name: configuration
    for configuration in (
        Configuration(
            "copy",
            "ntm-lstm",
            controller_size=100,
            updates=10000,
            validation=COPY_VALIDATION,
            evaluation=COPY_EVALUATION,
        ),
        Configuration(
            "copy",
            "ntm-ff",
            controller_size=100,
            learning_rate=2e-3,
            adam_epsilon=1e-5,
            blank_rate=0.03,
            updates=4000,
            validation=COPY_VALIDATION,
            evaluation=COPY_EVALUATION,
        ),
        Configuration(
            "copy",
            "lstm",
            controller_size=256,
            layers=3,
            locations=0,
            learning_rate=3e-4,
            updates=30000,
            validation=(Trial(20, 0, 64), Trial(120, 0, 32)),
            evaluation=(Trial(20, 0, 200), Trial(120, 0, 200)),
        ),
    )
}
