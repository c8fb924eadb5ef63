"""Three tasks that the authors of `ntm decipher` did not tune it for."""

import numpy as np

from ntm_tasks import Batch, Size, Task

BITS = 4
"""Bits of a vector that is to be put out in reverse."""


def reverse(generator: np.random.Generator, batch: int, size: Size, blank_rate: float = 0) -> Batch:
    """Show vectors and then a flag; the answer is the vectors, the last one first."""
    (length,) = size
    vectors = generator.integers(0, 2, (length, batch, BITS))
    inputs = np.zeros((2 * length + 1, batch, BITS + 1), np.float32)
    inputs[:length, :, :BITS] = vectors
    inputs[length, :, BITS] = 1
    targets = np.zeros((2 * length + 1, batch, BITS), np.float32)
    targets[length + 1 :] = vectors[::-1]
    mask = np.zeros((2 * length + 1, batch), np.float32)
    mask[length + 1 :] = 1
    return Batch(inputs, targets, mask)


def balanced(
    generator: np.random.Generator, batch: int, size: Size, blank_rate: float = 0
) -> Batch:
    """Show parentheses one by one; after each, the answer says whether all so far are balanced."""
    (length,) = size
    inputs = np.zeros((length, batch, 2), np.float32)  # an opening one, a closing one
    targets = np.zeros((length, batch, 1), np.float32)
    for row in range(batch):
        depth, valid = 0, True
        for step in range(length):
            # Mostly as depth allows, so that long sequences are balanced now and then.
            opens = generator.random() < (0.5 if depth > 0 else 0.95)
            inputs[step, row, 0 if opens else 1] = 1
            depth += 1 if opens else -1
            valid &= depth >= 0
            targets[step, row, 0] = valid and depth == 0
    return Batch(inputs, targets, np.ones((length, batch), np.float32))


def addition(
    generator: np.random.Generator, batch: int, size: Size, blank_rate: float = 0
) -> Batch:
    """
    Show a binary number, the lowest bit first, then a flag, then a second number.

    While the second one is shown, and one step longer, the answer is the sum, the lowest bit first.
    """
    (length,) = size
    first, second = generator.integers(0, 2, (2, length, batch))
    inputs = np.zeros((2 * length + 2, batch, 2), np.float32)  # the bit, the flag
    inputs[:length, :, 0] = first
    inputs[length, :, 1] = 1
    inputs[length + 1 : -1, :, 0] = second
    targets = np.zeros((2 * length + 2, batch, 1), np.float32)
    carry = np.zeros(batch, np.int64)
    for bit in range(length):
        total = first[bit] + second[bit] + carry
        targets[length + 1 + bit, :, 0] = total % 2
        carry = total // 2
    targets[-1, :, 0] = carry
    mask = np.zeros((2 * length + 2, batch), np.float32)
    mask[length + 1 :] = 1
    return Batch(inputs, targets, mask)


REVERSE = Task(
    "reverse",
    input_width=BITS + 1,
    output_width=BITS,
    size_names=("length",),
    smallest=(1,),
    largest=(10,),
    easiest=(1,),
    least=(1,),
    generate=reverse,
    longer=((15,), (20,)),
)
PARENTHESES = Task(
    "parentheses",
    input_width=2,
    output_width=1,
    size_names=("length",),
    smallest=(2,),
    largest=(20,),
    easiest=(2,),
    least=(1,),
    generate=balanced,
    longer=((30,), (40,)),
)
ADDITION = Task(
    "addition",
    input_width=2,
    output_width=1,
    size_names=("bits",),
    smallest=(1,),
    largest=(10,),
    easiest=(1,),
    least=(1,),
    generate=addition,
    longer=((15,), (20,)),
)
