"""
Listen for speech: stream a WAV file to a served silero-vad, 32 ms a step, for many callers at once.

    python listen.py speech.wav --server localhost:50051 --callers 64 --live
"""

from __future__ import annotations

import argparse
import asyncio
import time
import wave
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ntm_client import AsyncClient, NtmClientError

Samples = npt.NDArray[np.float32]

RATE, STEP, PAST = 16_000, 512, 64
"""Samples in a second and in a step, and those of the step before that the network hears again."""

APART = 0.3
"""Seconds of the recording between the starts of two callers, so that they say different things."""


def steps_of(path: Path) -> Samples:
    """Return the whole steps of a recording, [T, 512], of values from -1 to 1."""
    with wave.open(str(path), "rb") as file:
        form = (file.getframerate(), file.getnchannels(), file.getsampwidth())
        if form != (RATE, 1, 2):
            raise SystemExit(f"{path} is not of {RATE} Hz, one channel and 16 bits")
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    whole = len(samples) // STEP * STEP
    return samples[:whole].reshape(-1, STEP).astype(np.float32) / np.float32(32768)


def of_caller(steps: Samples, number: int) -> Samples:
    """Return the recording from another place on for each caller."""
    return np.roll(steps, -round(number * APART * RATE / STEP), axis=0)


async def call(
    client: AsyncClient, model: str, steps: Samples, waits: list[float], *, live: bool
) -> Samples:
    """Send a recording step by step, live at the pace of speech; return the probabilities."""
    loop = asyncio.get_running_loop()
    found = []
    async with await client.create_session(model) as session:
        begun = loop.time()
        for number, step in enumerate(steps):
            if live:
                await asyncio.sleep(begun + number * STEP / RATE - loop.time())
            sent = time.perf_counter()
            result = await session.step(step[None])
            waits.append(time.perf_counter() - sent)
            found.append(float(result.outputs[0, 0]))
    return np.array(found, np.float32)


async def calls(
    server: str, model: str, recordings: list[Samples], *, live: bool
) -> tuple[list[Samples], list[float]]:
    """Make all calls at once; return the probabilities of each, and the seconds of each step."""
    waits: list[float] = []
    async with AsyncClient(server) as client:
        made = (call(client, model, steps, waits, live=live) for steps in recordings)
        return await asyncio.gather(*made), waits


def loaded(onnx: Path) -> Any:
    """Load the package's file as the package does."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])


def package_loop(session: Any, steps: Samples) -> Samples:
    """Return what `OnnxWrapper` of the package silero_vad gives: its loop, in numpy."""
    state = np.zeros((2, 1, 128), np.float32)
    past = np.zeros((1, PAST), np.float32)
    rate = np.array(RATE, np.int64)
    found = []
    for step in steps:
        heard = np.concatenate((past, step[None]), axis=1)
        output, state = session.run(None, {"input": heard, "state": state, "sr": rate})
        past = heard[:, -PAST:]
        found.append(output[0, 0])
    return np.array(found, np.float32)


def draw(path: Path, steps: Samples, probabilities: Samples) -> None:
    """Draw the recording, and where somebody speaks."""
    from matplotlib import pyplot

    seconds = np.arange(len(steps)) * STEP / RATE
    figure, (above, below) = pyplot.subplots(2, 1, sharex=True, figsize=(9, 3.6))
    samples = steps.reshape(-1)
    above.plot(np.arange(len(samples)) / RATE, samples, linewidth=0.3, color="0.3")
    above.set_ylabel("sound")
    below.step(seconds, probabilities, where="post", linewidth=1)
    below.fill_between(seconds, 0, probabilities > 0.5, step="post", alpha=0.2)
    below.set_ylabel("speech")
    below.set_xlabel("seconds")
    below.set_ylim(0, 1.02)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def main() -> None:
    """Stream the recording, and say what came back."""
    parser = argparse.ArgumentParser(description="Listen for speech with a served network.")
    parser.add_argument("file", type=Path, help="recording: WAV, 16 kHz, one channel, 16 bits")
    parser.add_argument("--server", default="localhost:50051", help="address")
    parser.add_argument("--model", default="silero_vad", help="name of the served model")
    parser.add_argument("--callers", type=int, default=1, help="how many listen at once")
    parser.add_argument("--live", action="store_true", help="a step every 32 ms, as one speaks")
    parser.add_argument("--onnx", type=Path, help="the package's file, to compare with its loop")
    parser.add_argument("--plot", type=Path, help="draw the first caller's call as PNG")
    options = parser.parse_args()
    steps = steps_of(options.file)
    recordings = [of_caller(steps, number) for number in range(options.callers)]
    begun = time.perf_counter()
    try:
        called = calls(options.server, options.model, recordings, live=options.live)
        found, waits = asyncio.run(called)
    except NtmClientError as error:
        raise SystemExit(str(error)) from error
    seconds = time.perf_counter() - begun
    heard = np.mean([np.mean(each > 0.5) for each in found])
    print(
        f"{options.callers} callers, {len(steps)} steps each in {seconds:.1f} s: "
        f"{100 * heard:.0f} % speech"
    )
    middle, late = 1e3 * np.percentile(waits, (50, 99))
    print(f"a step took {middle:.1f} ms in the median, {late:.1f} ms at the 99th percentile")
    if options.onnx:
        pairs = zip(found, recordings, strict=True)
        session = loaded(options.onnx)
        apart = max(np.abs(each - package_loop(session, own)).max() for each, own in pairs)
        print(f"largest difference from the package's own loop: {apart:.1e}")
    if options.plot:
        draw(options.plot, steps, found[0])
        print(options.plot)


if __name__ == "__main__":
    main()
