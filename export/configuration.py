"""What a training is made from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from export.network import Sizes
from ntm_tasks import TASKS, Size


class Trial(NamedTuple):
    """A test of a network: so many sequences of one size, at a number of locations."""

    size: Size
    locations: int
    sequences: int


SETTING = (int, float, str)
"""Types of the fields that `with_settings` can replace, besides `locations`."""


@dataclass(frozen=True)
class Configuration:
    """What a training run is made from, besides its seed."""

    task: str
    architecture: str
    controller_size: int
    layers: int = 1
    read_heads: int = 1
    write_heads: int = 1
    locations: tuple[int, ...] = (128,)
    """
    N in training, one of these for each update.

    With few more than a sequence fills, a head that wanders meets what it wrote, and learns not to,
    which is what longer sequences ask for. With two sizes, no way of going round a ring of one.
    """
    default_locations: int = 128
    """Of a served session that asks for none; 0 for a baseline."""
    memory_width: int = 20
    initial_memory: str = "constant"
    """One of the network's `INITIAL_MEMORIES`, or "learned" (which fixes the locations)."""
    gate_bias: float = -3.0
    """
    Where the bias of every gate starts: below zero, heads start by shifting, not by content.

    Started at 0, copying heads learned to hold their places by content, which fails beyond the
    lengths trained on.
    """
    optimiser: str = "adam"
    """"adam", or "rmsprop" in the form that the paper used."""
    learning_rate: float = 1e-3
    decay: float = 0.5
    """In this last part of the updates the learning rate falls in a line to zero."""
    adam_epsilon: float = 1e-5
    """
    Adam divides by the root of the mean squared gradient plus this.

    Once a task is learned, gradients are tiny but for those of rare sequences. Divided by their
    typical size alone, those would move every parameter by several learning rates. The paper's
    RMSProp has such a floor as well.
    """
    clip_norm: float = 0.05
    """
    Longest gradient that passes unshortened; 0 shortens none.

    Sharp heads make the lengths of gradients differ by orders of magnitude, so that a few batches
    would decide. With this limit most batches count alike until the task is learned.
    """
    clip_ratio: float = 0.0
    """
    Longest gradient that passes unshortened, over the typical one (a running mean of what passed);
    0 leaves it at `clip_norm`, which it replaces after the first update.

    It follows gradients over any range of lengths, but what a learned task still gets wrong then
    counts no more than what it gets right: mistakes that are rare stay.
    """
    clip_value: float = 0.0
    """Largest component of a gradient that passes unclipped; 0 clips none."""
    batch: int = 32
    blank_rate: float = 0.0
    """Part of the vectors in training that are made zero: see the task."""
    expected_targets: bool = False
    """
    Train towards the optimum's probabilities, where the task knows them, not towards bits drawn.

    The optimum is the expectation of a target given all that went before. So the gradient has the
    same expectation, without the noise of drawing the target.
    """
    curriculum: int = 0
    """
    Sizes grow from the task's easiest to its largest in so many successful updates, those that
    cost at most `curriculum_cost`; 0 starts with all sizes.
    """
    curriculum_cost: float = 0.4
    """Bits for each target bit; guessing costs one."""
    relapse_bits: float = 0.0
    """
    Go back, with half the learning rate, where the first trial of validation costs more than this
    and much more than at best; 0 never does.
    """
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
            self.initial_memory,
            self.default_locations,
        )

    def with_settings(self, settings: dict[str, str]) -> Configuration:
        """
        The same with some settings replaced, each given as text.

        Raises:
            ValueError: a name is not that of a setting here, or a number's text is none.
        """
        values: dict[str, int | float | str | tuple[int, ...]] = {}
        for name, text in settings.items():
            if name == "locations":
                values[name] = tuple(int(number) for number in text.split(","))
                continue
            current = getattr(self, name, None)
            if name in ("task", "architecture", "name") or not isinstance(current, SETTING):
                raise ValueError(f"{name!r} is not a setting of the configuration")
            if isinstance(current, bool) and text not in ("True", "False"):
                raise ValueError(f"{name} is True or False, not {text!r}")
            values[name] = text == "True" if isinstance(current, bool) else type(current)(text)
        return replace(self, **values)  # type: ignore[arg-type]  # their types were just checked
