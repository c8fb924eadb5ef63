"""The page of a recording, in a real browser that has no network."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from ntm_client import Client
from ntm_lab.decipher.mechanism.study import Alike, Study
from ntm_lab.decipher.mechanism.wording import MechanismLine
from ntm_lab.decipher.program import Program
from ntm_lab.pictures.page import page, save
from ntm_lab.recordings.instructions import instructions
from ntm_lab.recordings.recording import Recording, record_task
from ntm_tasks import TaskSequence
from service.rpc.queue_loop import QueueLoop
from service.settings import Settings
from tests.conftest import serving
from tests.lab.decipher.programs import COPY, two_phases
from tests.support.recorded import recording as made_up
from tests.support.served import MODELS

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium; on Debian: apt install chromium"),
]

LENGTH = 12

Open = Callable[..., Page]


@pytest.fixture(scope="module")
def recorded() -> Recording:
    """A sequence copied by the served network."""

    def record(address: str) -> Recording:
        with Client(address) as client, client.create_session("copy-ntm-lstm") as session:
            return record_task(session, TaskSequence.draw("copy", (LENGTH,), seed=3))

    async def served() -> Recording:
        settings = Settings(models_dir=MODELS, device="cpu", port=0, metrics_port=0)
        async with serving(settings) as running:
            return await asyncio.to_thread(record, running.address)

    with asyncio.Runner(loop_factory=QueueLoop) as runner:
        return runner.run(served())


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser without a window."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def show(browser: Browser, tmp_path: Path) -> Iterator[Open]:
    """Open the page of a recording; nothing may go wrong in it, nor be asked of a network."""
    wrong: list[str] = []
    contexts = []

    def show(
        recording: Recording,
        program: Program | None = None,
        mechanism: Study | None = None,
        step: int = 0,
        scheme: Any = "light",
    ) -> Page:
        path = tmp_path / "page.html"
        save(recording, path, program, mechanism)
        context = browser.new_context(offline=True, color_scheme=scheme)
        contexts.append(context)
        shown = context.new_page()
        shown.on("pageerror", lambda error: wrong.append(str(error)))
        shown.on(
            "console",
            lambda message: wrong.append(message.text) if message.type == "error" else None,
        )
        shown.on(
            "request",
            lambda request: None if request.url.startswith("file:") else wrong.append(request.url),
        )
        shown.clock.install()
        shown.goto(f"{path.as_uri()}#step={step}")
        return shown

    yield show
    for context in contexts:
        context.close()
    assert wrong == []


def now(shown: Page) -> str:
    """What the page says of where it is."""
    return shown.locator("#now").inner_text()


def head_words(shown: Page) -> list[str]:
    """What the page says of each head."""
    return shown.locator("#heads td").all_inner_texts()


def test_memory_is_that_of_the_server(recorded: Recording, show: Open) -> None:
    """After the last step the page has computed the memory that the server had."""
    assert recorded.after is not None
    shown = show(recorded, step=len(recorded.inputs) - 1)

    memory = np.array(shown.evaluate("Array.from(current)"), np.float32)

    np.testing.assert_allclose(
        memory.reshape(recorded.after.memory.shape), recorded.after.memory, atol=1e-5
    )


def test_memory_does_not_depend_on_the_way_to_a_step(recorded: Recording, show: Open) -> None:
    """Going back gives the memory that going on gave."""
    shown = show(recorded)
    going_on = shown.evaluate("[...Array(steps).keys()].map((step) => memoryAfter(step)[40])")

    going_back = shown.evaluate(
        "[...Array(steps).keys()].reverse().map((step) => memoryAfter(step)[40])"
    )

    assert going_on == going_back[::-1]
    assert len(set(going_on)) > 1


def test_words_are_those_of_each_head_at_the_step(recorded: Recording, show: Open) -> None:
    """At each step the page tells what each head did in that step."""
    shown = show(recorded)
    told = []
    for _ in recorded.inputs:
        told.append(head_words(shown))
        shown.keyboard.press("ArrowRight")

    assert told == [[each.words() for each in step] for step in instructions(recorded)]


@pytest.mark.parametrize(
    ("keys", "step"),
    [
        (["ArrowRight", "ArrowRight", "ArrowLeft"], 1),
        (["End"], 24),
        (["End", "Home"], 0),
        (["PageDown"], 10),
        (["PageDown", "PageDown", "PageUp"], 10),
        (["ArrowLeft"], 0),
        (["End", "ArrowRight"], 24),
    ],
)
def test_keys_move_along_time(recorded: Recording, show: Open, keys: list[str], step: int) -> None:
    """Arrows go a step, Page Up and Page Down ten, Home and End to the ends and no further."""
    shown = show(recorded)
    for key in keys:
        shown.keyboard.press(key)

    assert now(shown).startswith(f"step {step} of 24")
    assert shown.url.endswith(f"#step={step}")


def test_mouse_moves_along_time(recorded: Recording, show: Open) -> None:
    """A click into any picture of the timeline goes to the step below the pointer."""
    shown = show(recorded)
    plot = shown.locator(".plot").last
    box = plot.bounding_box()
    assert box is not None

    plot.click(position={"x": box["width"] * 17.5 / 25, "y": 5})

    assert now(shown).startswith("step 17 of 24")


def test_buttons_and_slider_move_along_time(recorded: Recording, show: Open) -> None:
    """Everything that keys do can be done with the mouse."""
    shown = show(recorded)
    shown.get_by_role("button", name="a step on").click()
    after_a_step = now(shown)
    shown.get_by_role("button", name="last step").click()
    at_the_end = now(shown)
    shown.get_by_role("slider").fill("12")

    assert (after_a_step, at_the_end) == ("step 1 of 24", "step 24 of 24")
    assert now(shown) == "step 12 of 24 · delimiter"


def test_playing_ends_with_the_last_step(recorded: Recording, show: Open) -> None:
    """Space plays the sequence, can pause it, and playing stops at the end by itself."""
    shown = show(recorded)
    shown.keyboard.press(" ")
    can_pause = shown.get_by_role("button", name="pause").is_visible()
    shown.clock.run_for(60_000)

    assert can_pause
    assert now(shown) == "step 24 of 24"
    assert shown.get_by_role("button", name="play").is_visible()


def test_current_line_of_the_program_is_marked(recorded: Recording, show: Open) -> None:
    """Beside the trace stands the program, with the lines that the step is about marked."""
    shown = show(recorded, replace(COPY, phases=two_phases(8)))
    marked = []
    for step in (0, 1, LENGTH + 1):
        shown.evaluate(f"go({step})")
        marked.append(shown.locator("li[aria-current]").all_inner_texts())

    assert marked == [
        [
            "phase 0, until input 8 is set, at each step:",
            "if it is step 0: the write head stays",
            "write the input at the write head",
        ],
        [
            "phase 0, until input 8 is set, at each step:",
            "else the write head shifts +1",
            "write the input at the write head",
        ],
        [
            "phase 1, from the step 0 in which input 8 is set, at each step:",
            "else the read head shifts +1",
            "emit what the read head reads",
        ],
    ]


def test_current_line_of_the_mechanism_is_marked(recorded: Recording, show: Open) -> None:
    """Below the program stands the mechanism; a line that explains a key is never current."""
    lines = (
        MechanismLine("in every phase, at each step:", None),
        MechanismLine("    at step 0: it stays", 0, 0, 0),
        MechanismLine("    from step 1 on: it moves", 0, 1),
        MechanismLine("phase 1", 1),
        MechanismLine("K1: a key", None, executed=False),
    )
    study = Study(two_phases(8), lines, 1, (Alike("in range", 1, 1),), None, ())
    shown = show(recorded, replace(COPY, phases=two_phases(8)), study)
    marked = []
    for step in (0, 1, LENGTH):
        shown.evaluate(f"go({step})")
        texts = shown.locator(".code").nth(1).locator("li[aria-current]").all_inner_texts()
        marked.append(texts[1:])

    assert shown.locator(".code h2").all_inner_texts() == ["Program", "Mechanism"]
    assert marked == [["at step 0: it stays"], ["from step 1 on: it moves"], ["phase 1"]]


def test_wrong_bits_are_marked(recorded: Recording, show: Open) -> None:
    """Outputs that are not what the task wants are pointed out, where it wants any."""
    outputs = recorded.outputs.copy()
    outputs[20, 3] = 1 - np.rint(outputs[20, 3])
    shown = show(replace(recorded, outputs=outputs), step=20)
    wrong_there = shown.locator(".vector .wrong").count()
    shown.keyboard.press("Home")

    assert wrong_there == 1
    assert shown.locator(".vector .wrong").count() == 0


def test_light_and_dark(recorded: Recording, show: Open) -> None:
    """The page is as light as the system, a key changes that, and pictures change with it."""
    shown = show(recorded, scheme="dark")
    empty = "byId('map').getContext('2d').getImageData(0, shown.length - 1, 1, 1).data[0]"
    dark = shown.evaluate("getComputedStyle(document.body).backgroundColor"), shown.evaluate(empty)
    shown.keyboard.press("t")
    light = shown.evaluate("getComputedStyle(document.body).backgroundColor"), shown.evaluate(empty)

    assert dark == ("rgb(18, 22, 28)", 18)
    assert light == ("rgb(255, 255, 255)", 255)


def test_network_without_heads(show: Open) -> None:
    """An LSTM has inputs and outputs to see, and neither heads nor a memory."""
    shown = show(made_up(heads=0))

    assert shown.locator("figcaption").all_inner_texts() == ["inputs", "target", "outputs"]
    assert not shown.locator("#memory").is_visible()
    assert not shown.locator("#heads").is_visible()


def test_names_are_only_text(recorded: Recording, show: Open) -> None:
    """A model's name that looks like HTML is shown as it is."""
    name = "</script><img src=x onerror=alert(1)>"
    shown = show(replace(recorded, model=replace(recorded.model, name=name)))

    assert shown.locator("h1").inner_text().startswith(name)
    assert shown.locator("img").count() == 0


def test_page_names_no_other_place(recorded: Recording) -> None:
    """Nothing in the page is loaded from anywhere."""
    text = page(recorded)

    assert "default-src 'none'" in text
    assert "http://" not in text
    assert "https://" not in text
