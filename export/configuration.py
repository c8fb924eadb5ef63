"""The settings of a training."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from export.network import Sizes
from ntm_tasks import TASKS, Size


class Trial(NamedTuple):
    """A test of a network: a number of sequences of one size, at N locations."""

    size: Size
    locations: int
    sequences: int


SETTING = (int, float, str)
"""The types of the fields that `with_settings` can replace, besides `locations`."""


@dataclass(frozen=True)
class Configuration:
    """The settings of a training run, besides its seed."""

    task: str
    architecture: str
    controller_size: int
    layers: int = 1
    read_heads: int = 1
    write_heads: int = 1
    locations: tuple[int, ...] = (128,)
    """
    N in training: each update draws one of these.

    If N is little more than a sequence fills, a head that wanders meets what it wrote and learns to
    avoid it, as longer sequences require. With two sizes, a network cannot rely on a ring of one
    size.
    """
    default_locations: int = 128
    """N of a served session that sets none. 0 for a network without memory."""
    memory_width: int = 20
    initial_memory: str = "constant"
    """A key of `ntm.INITIAL_MEMORIES`, or "learned", which fixes N."""
    gate_bias: float = -3.0
    """
    The initial bias of every gate. Below zero, heads start by shifting, not by content.

    With 0, copying heads learned to find their places by content, which fails beyond the lengths
    trained on.
    """
    optimiser: str = "adam"
    """"adam", or "rmsprop" as in the paper."""
    learning_rate: float = 1e-3
    decay: float = 0.5
    """The last share of the updates, in which the learning rate falls linearly to zero."""
    adam_epsilon: float = 1e-5
    """
    Adam divides by the root of the mean squared gradient plus this.

    Once a task is learned, all gradients are tiny except those of rare sequences. Without this
    floor, these would move every parameter by several learning rates. The paper's RMSProp has such
    a floor too.
    """
    clip_norm: float = 0.05
    """
    The largest norm of a gradient; longer ones are shortened to it. 0 shortens none.

    Sharp heads make the norms of gradients differ by orders of magnitude, so that a few batches
    would dominate. With this limit, most batches count alike until the task is learned.
    """
    clip_ratio: float = 0.0
    """
    The largest norm of a gradient over the typical norm (a running mean of the shortened norms).

    0 leaves the limit at `clip_norm`; otherwise this replaces it after the first update. It
    follows gradients over any range of norms. But once a task is learned, the gradient of a rare
    mistake counts no more than any other, so rare mistakes stay.
    """
    clip_value: float = 0.0
    """The largest absolute component of a gradient; larger ones are clipped. 0 clips none."""
    batch: int = 32
    blank_rate: float = 0.0
    """The share of the vectors in training that are made zero: see the task."""
    expected_targets: bool = False
    """
    Train towards the probabilities of the optimal predictor, where the task has them.

    They are the expectations of the targets, given the sequence so far. So the gradient has the
    same expectation as with drawn targets, without their noise.
    """
    curriculum: int = 0
    """
    The number of successful updates in which sizes grow from the task's easiest to its largest.

    An update is successful if it costs at most `curriculum_cost`. 0 starts with all sizes.
    """
    curriculum_cost: float = 0.4
    """In bits for each target bit. Guessing costs 1."""
    relapse_bits: float = 0.0
    """
    The bits of the first trial of validation from which a run is checked for a relapse.

    A run that costs more, and much more than at its best, goes back to its last checkpoint with
    half the learning rate. 0 never does.
    """
    updates: int = 6000
    report_every: int = 100
    """Updates between two points of the curve. Each point has a validation and a checkpoint."""
    validation: tuple[Trial, ...] = ()
    """In rising order of difficulty. A trial runs only if all before it had no wrong bit."""
    evaluation: tuple[Trial, ...] = ()
    """The trials on the card."""

    @property
    def name(self) -> str:
        """The name of the model, TASK-ARCHITECTURE."""
        return f"{self.task}-{self.architecture}"

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

    def with_settings(self, settings: dict[str, str]) -> Configuration:
        """
        Return a copy with some settings replaced. The values are text.

        Raises:
            ValueError: a name is not a setting, or a value cannot be read.
        """
        values: dict[str, int | float | str | tuple[int, ...]] = {}
        for name, text in settings.items():
            if name == "locations":
                values[name] = tuple(int(number) for number in text.split(","))
                continue
            current = getattr(self, name, None)
            if name in ("task", "architecture", "name") or not isinstance(current, SETTING):
                raise ValueError(
                    f"{name!r} is not a setting that can be replaced; see export/configuration.py"
                )
            if isinstance(current, bool) and text not in ("True", "False"):
                raise ValueError(f"{name} is True or False, not {text!r}")
            values[name] = text == "True" if isinstance(current, bool) else type(current)(text)
        return replace(self, **values)  # type: ignore[arg-type]  # their types were just checked
