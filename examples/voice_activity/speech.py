"""
Make speech.wav: a voice that says nothing, with pauses, in noise. It needs numpy alone.

A pulse for each opening of the vocal folds goes through resonances that move from vowel to vowel.
That is enough for a voice activity detector.
"""

from __future__ import annotations

import argparse
import wave
from pathlib import Path

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float64]

RATE = 16_000
VOWELS = {
    "a": (730, 1090, 2440),
    "e": (530, 1840, 2480),
    "i": (270, 2290, 3010),
    "o": (570, 840, 2410),
    "u": (300, 870, 2240),
}
"""Resonances in hertz, of Peterson and Barney 1952."""

WIDTHS = (80, 100, 140)
"""Widths of the resonances in hertz."""

SENTENCES = ("aieoua", "oieua", "eaio", "uoaeia")
SYLLABLE, PAUSE = 0.22, 1.1
"""Seconds."""


def sentence(vowels: str, pitch: float, generator: np.random.Generator) -> Samples:
    """A sentence of vowels with a falling pitch in hertz; values up to 1."""
    count = int(len(vowels) * SYLLABLE * RATE)
    time = np.arange(count) / RATE
    places = (np.arange(len(vowels)) + 0.5) * SYLLABLE
    moments = np.arange(0, time[-1], 0.05)
    shake = np.interp(time, moments, generator.normal(0, 0.01, len(moments)))
    hertz = pitch * (1.15 - 0.3 * time / time[-1]) * (1 + shake)
    phase = np.cumsum(hertz) / RATE
    pulses = np.diff(np.floor(phase), prepend=0.0)
    breath = generator.normal(0, 0.02, count)
    value = pulses + breath
    for number, width in enumerate(WIDTHS):
        centre = np.interp(time, places, [VOWELS[vowel][number] for vowel in vowels])
        value = resonance(value, centre, width)
    loudness = np.abs(np.sin(np.pi * time / SYLLABLE)) ** 0.4
    value = np.diff(value, prepend=0.0) * loudness * np.minimum(1, (time[-1] - time) / 0.1)
    return np.asarray(value / np.abs(value).max())


def resonance(value: Samples, hertz: Samples, width: float) -> Samples:
    """A filter of second order whose resonance moves."""
    radius = np.exp(-np.pi * width / RATE)
    first, second = 2 * radius * np.cos(2 * np.pi * hertz / RATE), -(radius**2)
    result = np.zeros(len(value) + 2)
    for at in range(len(value)):
        result[at + 2] = value[at] * (1 - radius) + first[at] * result[at + 1] + second * result[at]
    return result[2:]


def speech() -> npt.NDArray[np.int16]:
    """Sentences of two voices between pauses, with noise all through; int16."""
    generator = np.random.default_rng(0)
    pause = np.zeros(int(PAUSE * RATE))
    parts = [pause]
    for number, vowels in enumerate(SENTENCES):
        parts += [0.4 * sentence(vowels, (115, 205)[number % 2], generator), pause]
    value = np.concatenate(parts)
    value += generator.normal(0, 0.002, len(value))
    return (value * 32767).round().astype(np.int16)


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description="Make a file of speech to listen to.")
    parser.add_argument("file", nargs="?", type=Path, default=Path("speech.wav"))
    path = parser.parse_args().file
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        samples = speech()
        file.writeframes(samples.astype("<i2").tobytes())
    print(f"{path}: {len(samples) / RATE:.1f} s")


if __name__ == "__main__":
    main()
