"""The addressing functions against the paper's equations, written as slow loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from export import addressing

B, H, N, M = 2, 3, 7, 4


def random(*shape: int, low: float = -1.0, high: float = 1.0) -> Tensor:
    """Doubles between two bounds, the same in every run."""
    generator = torch.Generator().manual_seed(sum(shape))
    return low + (high - low) * torch.rand(*shape, generator=generator, dtype=torch.float64)


def weightings(*shape: int) -> Tensor:
    """Weightings that sum to 1."""
    return torch.softmax(random(*shape, low=-3, high=3), -1)


def assert_close(
    expected: np.ndarray[tuple[int, ...], np.dtype[np.float64]], found: Tensor
) -> None:
    """Assert equality up to the epsilons."""
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-6)


def test_content_weighting_is_a_softmax_of_cosines() -> None:
    """Every head weighs locations by softmax of strength times cosine (equations 5 and 6)."""
    memory, key, strength = random(B, M, N), random(B, H, M), random(B, H, 1, low=0, high=9)
    expected = np.zeros((B, H, N))
    for b in range(B):
        for h in range(H):
            scores = []
            for i in range(N):
                row = [float(memory[b, m, i]) for m in range(M)]
                k = [float(key[b, h, m]) for m in range(M)]
                dot = sum(p * q for p, q in zip(row, k, strict=True))
                cosine = dot / (math.hypot(*row) * math.hypot(*k))
                scores.append(math.exp(float(strength[b, h, 0]) * cosine))
            expected[b, h] = np.array(scores) / sum(scores)

    assert_close(expected, addressing.content_weighting(memory, key, strength))


def test_interpolation_blends_by_the_gate() -> None:
    """The gate blends content with the previous weighting (equation 7)."""
    content, previous = weightings(B, H, N), random(B, H, N)
    gate = random(B, H, 1, low=0)
    expected = np.zeros((B, H, N))
    for b, h, i in np.ndindex(B, H, N):
        g = float(gate[b, h, 0])
        expected[b, h, i] = g * float(content[b, h, i]) + (1 - g) * float(previous[b, h, i])

    assert_close(expected, addressing.interpolate(content, previous, gate))


@pytest.mark.parametrize("locations", [1, 2, 3, 7])
def test_shifting_is_circular_convolution(locations: int) -> None:
    """Shifting convolves with the shift distribution around the ring (equation 8)."""
    weighting, shift = weightings(B, H, locations), weightings(B, H, 3)
    expected = np.zeros((B, H, locations))
    for b, h, i in np.ndindex(B, H, locations):
        for index, offset in enumerate((-1, 0, 1)):
            source = (i - offset) % locations
            expected[b, h, i] += float(weighting[b, h, source]) * float(shift[b, h, index])

    assert_close(expected, addressing.shift_weighting(weighting, shift))


@pytest.mark.parametrize(("index", "start", "end"), [(0, 0, 4), (1, 3, 3), (2, 2, 3), (2, 4, 0)])
def test_shift_plus_one_moves_to_the_next_location(index: int, start: int, end: int) -> None:
    """All weight on shift +1 moves from i to i + 1, on -1 to i - 1, around the ring's end."""
    weighting, shift = torch.zeros(1, 1, 5), torch.zeros(1, 1, 3)
    weighting[0, 0, start] = 1
    shift[0, 0, index] = 1

    assert end == int(addressing.shift_weighting(weighting, shift)[0, 0].argmax())


def test_sharpening_raises_to_a_power_and_normalises() -> None:
    """Sharpening is w^gamma over its sum (equation 9)."""
    weighting, sharpening = weightings(B, H, N), random(B, H, 1, low=1, high=5)
    expected = np.zeros((B, H, N))
    for b, h in np.ndindex(B, H):
        powers = [float(w) ** float(sharpening[b, h, 0]) for w in weighting[b, h]]
        expected[b, h] = np.array(powers) / sum(powers)

    assert_close(expected, addressing.sharpen(weighting, sharpening))


def test_reading_sums_weighted_locations() -> None:
    """A read vector is the weighted sum of the locations (equation 2)."""
    memory, weighting = random(B, M, N), weightings(B, H, N)
    expected = np.zeros((B, H, M))
    for b, h, m in np.ndindex(B, H, M):
        expected[b, h, m] = sum(float(weighting[b, h, i] * memory[b, m, i]) for i in range(N))

    assert_close(expected, addressing.read(memory, weighting))


@pytest.mark.parametrize("heads", [1, 2, 3])
def test_all_heads_erase_before_any_adds(heads: int) -> None:
    """The memory is erased by every head, then added to by every head (equations 3 and 4)."""
    memory, weighting = random(B, M, N), weightings(B, heads, N)
    erase, add = random(B, heads, M, low=0), random(B, heads, M)
    expected = memory.clone().numpy()
    for b, m, i in np.ndindex(B, M, N):
        for h in range(heads):
            expected[b, m, i] *= 1 - float(weighting[b, h, i] * erase[b, h, m])
        for h in range(heads):
            expected[b, m, i] += float(weighting[b, h, i] * add[b, h, m])

    assert_close(expected, addressing.write(memory, weighting, erase, add))


def test_gradients_are_those_of_finite_differences() -> None:
    """Automatic gradients of the whole chain agree with finite differences, in double precision."""

    def chain(*tensors: Tensor) -> Tensor:
        memory, key, strength, previous, gate, shift, sharpening, erase, add = tensors
        weighting = addressing.content_weighting(memory, key, strength)
        weighting = addressing.interpolate(weighting, previous, gate)
        weighting = addressing.sharpen(addressing.shift_weighting(weighting, shift), sharpening)
        memory = addressing.write(memory, weighting, erase, add)
        return addressing.read(memory, weighting)

    arguments = (
        random(1, M, N),
        random(1, 2, M),
        random(1, 2, 1, low=0.5, high=3),
        weightings(1, 2, N),
        random(1, 2, 1, low=0),
        weightings(1, 2, 3),
        random(1, 2, 1, low=1, high=3),
        random(1, 2, M, low=0),
        random(1, 2, M),
    )

    assert torch.autograd.gradcheck(chain, [value.requires_grad_() for value in arguments])


@pytest.mark.parametrize("previous", [[1.0, 0.0, 0.0, 0.0], [0.25] * 4])
def test_values_and_gradients_are_finite_in_the_corner(previous: list[float]) -> None:
    """Zero memory, zero keys, one-hot weightings and extreme strengths make no NaN anywhere."""
    memory = torch.zeros(1, 3, 4, requires_grad=True)
    key = torch.zeros(1, 1, 3, requires_grad=True)
    before = torch.tensor([[previous]], requires_grad=True)
    shift = torch.tensor([[[0.0, 0.0, 1.0]]], requires_grad=True)
    extreme = torch.full((1, 1, 1), 21.0, requires_grad=True)
    gate = torch.zeros(1, 1, 1, requires_grad=True)
    weighting = addressing.content_weighting(memory, key, extreme)
    weighting = addressing.interpolate(weighting, before, gate)
    weighting = addressing.sharpen(addressing.shift_weighting(weighting, shift), extreme)
    weighting.square().sum().backward()  # type: ignore[no-untyped-call]  # torch's

    assert weighting.isfinite().all()
    for tensor in (memory, key, before, shift, extreme, gate):
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()
