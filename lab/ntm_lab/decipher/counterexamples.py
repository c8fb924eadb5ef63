"""
Searches for inputs on which a program and its network disagree, by size and by contents.

The program runs on an endless tape and does not depend on the network's memory size. One number of
the size is doubled until some input disagrees or sequences get too long. Then a binary search finds
the smallest size that disagrees. The same unusual contents are tried at each size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from ntm_client.values import Float32
from ntm_lab.decipher.machine import Machine
from ntm_lab.decipher.program import Program
from ntm_lab.decipher.samples import ServedNetwork, of_size
from ntm_tasks import TASKS, Size, TaskSequence

MAX_STEPS = 700
"""The largest length of a sequence that is tried: more than twice what 128 locations can hold."""

RANDOM = 4
"""The number of random sequences of each size."""

SMALLER = 4
"""A claim about the memory's size is also tested with a memory that is smaller by this factor."""


@dataclass(frozen=True)
class Ring:
    """The size from which the program differs on a ring of locations from itself on a tape."""

    locations: int
    size: Size | None
    """The smallest such size; None if there is none up to the counter-example's."""
    network_too: bool
    """
    Whether the network with that many locations differs from the program on a tape from the same
    size on: it disagrees at that size, and agrees at the size below.
    """


@dataclass(frozen=True, eq=False)
class CounterExample:
    """An input on which program and network disagree."""

    size: Size
    contents: str
    inputs: Float32
    """[T, input width]"""
    first_step: int
    """The first step whose bits differ."""
    differing: int
    """The number of bits that count and differ."""
    bits: int
    agreeing_size: Size | None
    """The next smaller size that was tried, at which all contents agreed; None if there is none."""
    rings: tuple[Ring, ...] = ()
    """The results for the network's memory size, and for a smaller one."""

    @property
    def wraps_around(self) -> bool:
        """
        Whether the size of the memory is why program and network disagree.

        It is the reason if the program on a ring predicts, for two memory sizes, the size from
        which the network disagrees.
        """
        return bool(self.rings) and all(ring.network_too for ring in self.rings)


@dataclass(frozen=True)
class Search:
    """The result of a search."""

    sizes: int
    sequences: int
    found: tuple[CounterExample, ...]
    """
    The smallest counter-example in each direction that has one; the shortest sequence comes first.
    """


def search(program: Program, network: ServedNetwork, seed: int = 0) -> Search:
    """Look for counter-examples among sequences of the task that the network's model names."""
    return _Searcher(program, network, seed).search()


def contents(task: str, size: Size, seed: int) -> Iterator[tuple[str, Float32]]:
    """
    Yield names and inputs [T, input width] of one size: random ones, and ones with unusual vectors.

    Unusual vectors replace the vectors of a random sequence. Equal vectors get equal replacements,
    so that a query still equals the queried item. Vectors that the task does not allow are left
    out. At the smallest size, if it has a single vector, every possible vector is tried.
    """
    drawn = of_size(task, size, RANDOM, seed)
    for number, sequence in enumerate(drawn):
        yield f"random {number + 1}", sequence.inputs
    bits = TASKS[task].vector_bits
    if not bits:
        return
    steps = _steps_with_vectors(drawn[0])
    vectors = drawn[0].inputs[steps, :bits]
    for name, odd in _ODD.items():
        replaced = np.array([odd(vector, vectors[0]) for vector in vectors])
        if TASKS[task].allows(replaced):
            yield name, _with_vectors(drawn[0].inputs, steps, replaced)
    if size == TASKS[task].least and len(steps) == 1:
        for vector in product((0, 1), repeat=bits):
            yield f"{vector}", _with_vectors(drawn[0].inputs, steps, np.array([vector]))


def _flipped(vector: Float32, first: Float32) -> Float32:
    """The sequence's first vector with one bit flipped. The vector's sum decides which bit."""
    flipped = first.copy()
    flipped[int(vector.sum()) % len(vector)] = 1 - flipped[int(vector.sum()) % len(vector)]
    return flipped


def _single(vector: Float32, _: Float32) -> Float32:
    """A vector with a single bit set. The vector's sum decides which bit."""
    single = np.zeros_like(vector)
    single[int(vector.sum()) % len(vector)] = 1
    return single


_ODD: Mapping[str, Callable[[Float32, Float32], Float32]] = {
    "all zeros": lambda vector, first: np.zeros_like(vector),
    "all ones": lambda vector, first: np.ones_like(vector),
    "one vector again and again": lambda vector, first: first,
    "one vector with a bit flipped": _flipped,
    "single bits": _single,
    "every other vector blank": lambda vector, first: vector * vector[0],
    "complements": lambda vector, first: 1 - vector,
}
"""By name, functions that replace a vector, given the vector and the sequence's first vector."""


class _Searcher:
    """Compares a program and a network, and remembers the sizes that it has tried."""

    def __init__(self, program: Program, network: ServedNetwork, seed: int) -> None:
        self._program = program
        self._network = network
        self._task = network.model.task
        self._seed = seed
        self._tried: dict[Size, CounterExample | None] = {}
        self._sequences = 0

    def search(self) -> Search:
        """
        Search along each number of the size, first with the other numbers small, then with them
        large.
        """
        task = TASKS[self._task]
        found: dict[Size, CounterExample] = {}
        for axis in range(len(task.least)):
            others = [task.least, *([task.largest] if len(task.least) > 1 else [])]
            for start in others:
                example = self._along(_with(start, axis, task.least[axis]), axis)
                if example is not None:
                    found.setdefault(example.size, example)
        shortest = sorted(found.values(), key=lambda example: len(example.inputs))
        return Search(len(self._tried), self._sequences, tuple(shortest))

    def _along(self, start: Size, axis: int) -> CounterExample | None:
        """
        The smallest counter-example along one number of the size, as a binary search finds it; None
        if there is none.
        """
        number, good = start[axis], None
        while (example := self._try(_with(start, axis, number))) is None:
            good, number = number, 2 * number
            most = TASKS[self._task].most
            if number > (most[axis] if most else MAX_STEPS):
                return None
            if self._length(_with(start, axis, number)) > MAX_STEPS:
                return None
        while good is not None and number - good > 1:
            middle = (good + number) // 2
            between = self._try(_with(start, axis, middle))
            if between is None:
                good = middle
            else:
                number, example = middle, between
        agreeing = None if good is None else _with(start, axis, good)
        locations = self._network.memory_locations
        rings = [
            self._ring(start, axis, number, each) for each in (locations, locations // SMALLER)
        ]
        return replace(example, agreeing_size=agreeing, rings=tuple(rings))

    def _try(self, size: Size) -> CounterExample | None:
        """A counter-example of that size; None if no contents make one."""
        if size not in self._tried:
            self._tried[size] = self._compare(size)
        return self._tried[size]

    def _compare(self, size: Size) -> CounterExample | None:
        tried = list(contents(self._task, size, self._seed))
        self._sequences += len(tried)
        (example,) = of_size(self._task, size, 1, self._seed)
        answers = self._network.outputs([inputs for _, inputs in tried])
        for (name, inputs), answer in zip(tried, answers, strict=True):
            differs = ((self._run(inputs, None) > 0.5) != (answer > 0.5)).any(1) & (
                example.mask > 0
            )
            if differs.any():
                own, found = (
                    example.answer(outputs) for outputs in (self._run(inputs, None), answer)
                )
                return CounterExample(
                    size,
                    name,
                    inputs,
                    first_step=int(differs.argmax()),
                    differing=int((own != found).sum()),
                    bits=found.size,
                    agreeing_size=None,
                )
        return None

    def _ring(self, start: Size, axis: int, maximum: int, locations: int) -> Ring:
        """
        Find the size from which a ring differs from a tape, for the program and for the network.
        """
        sizes = [_with(start, axis, number) for number in range(start[axis], maximum + 1)]
        index = next(
            (index for index, size in enumerate(sizes) if self._tells_apart(size, locations)), None
        )
        if index is None:
            return Ring(locations, None, network_too=False)
        network = replace(self._network, locations=locations)
        leaves = not self._agrees(network, sizes[index])
        stays = index == 0 or self._agrees(network, sizes[index - 1])
        return Ring(locations, sizes[index], network_too=leaves and stays)

    def _tells_apart(self, size: Size, locations: int) -> bool:
        """Whether the program's outputs on a ring differ from those on a tape."""
        sequence = self._drawn(size)
        tape, ring = (self._run(sequence.inputs, length) for length in (None, locations))
        return not np.array_equal(sequence.answer(tape), sequence.answer(ring))

    def _agrees(self, network: ServedNetwork, size: Size) -> bool:
        """Whether the program on a tape gives the outputs of the network."""
        sequence = self._drawn(size)
        (answer,) = network.outputs([sequence.inputs])
        own = self._run(sequence.inputs, None)
        return bool(np.array_equal(sequence.answer(own), sequence.answer(answer)))

    def _run(self, inputs: Float32, locations: int | None) -> Float32:
        return Machine(self._program, locations).run(inputs)

    def _drawn(self, size: Size) -> TaskSequence:
        return of_size(self._task, size, 1, self._seed)[0]

    def _length(self, size: Size) -> int:
        return len(self._drawn(size).inputs)


def _steps_with_vectors(sequence: TaskSequence) -> list[int]:
    """The steps that show a vector: those before the answer, without the steps that have a mark."""
    return [step for step in range(int(sequence.mask.argmax())) if step not in sequence.marks]


def _with_vectors(inputs: Float32, steps: list[int], vectors: Float32) -> Float32:
    """A copy of the inputs with these vectors in these steps."""
    changed = inputs.copy()
    changed[steps, : vectors.shape[1]] = vectors
    return changed


def _with(size: Size, axis: int, number: int) -> Size:
    return (*size[:axis], number, *size[axis + 1 :])
