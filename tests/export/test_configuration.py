"""A configuration is checked when it is built: each setting by itself, and all with each other."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import Field, fields, replace
from typing import Any

import pytest

from export.architectures import ARCHITECTURES
from export.configuration import SETTINGS, Configuration, Trial, differences
from export.configurations import CONFIGURATIONS, PAPER
from export.network import Sizes
from tests.export.conftest import tiny

NUMBERS = [
    setting for setting in fields(Configuration) if setting.metadata.get("minimum") is not None
]
CHOICES = [setting for setting in fields(Configuration) if setting.metadata.get("choices")]
TRIALS = ("validation", "choice", "evaluation")
ELSEWHERE = {"task", "architecture", "expected_targets", *TRIALS}
"""Settings without a declared limit: two are names, one is a bool, three are trials."""


def test_every_setting_has_its_limits() -> None:
    """Each number has a minimum and a finite maximum, and each text its choices."""
    declared = {setting.name for setting in (*NUMBERS, *CHOICES)}

    assert declared | ELSEWHERE == {setting.name for setting in fields(Configuration)}
    assert set(SETTINGS) == declared | ELSEWHERE - {"task", "architecture"}
    for setting in NUMBERS:
        assert setting.metadata["minimum"] < setting.metadata["maximum"] < math.inf, setting.name


def wrong_values() -> Iterator[tuple[str, Any]]:
    """Every setting with values beyond its limits and of other types."""
    for setting in NUMBERS:
        low, high = setting.metadata["minimum"], setting.metadata["maximum"]
        wrong: list[Any] = [low - 1, high + 1, math.nan, math.inf, -math.inf]
        if setting.name == "locations":
            wrong = [(value,) for value in wrong] + [(), (1.0,), (True,), [24], 24]
        yield from ((setting.name, value) for value in [*wrong, "1", None, True])
    for setting in CHOICES:
        yield from ((setting.name, value) for value in ("another", "", None, 1))
    for name in ("task", "architecture"):
        yield from ((name, value) for value in ("another", "", None, 1))
    yield from (("expected_targets", value) for value in (1, 0, "True", None))
    for name in TRIALS:
        good: Any = Trial((3,), 16, 2)
        wrong = [good._replace(size=size) for size in ((), (0,), (-1,), (3, 3), (10**9,), (1.5,))]
        wrong += [good._replace(locations=count) for count in (0, -1, 10**9, 1.5)]
        wrong += [good._replace(sequences=count) for count in (0, -1, 10**9, 1.5)]
        yield from ((name, (good, trial)) for trial in [*wrong, (3, 16, 2)])
        yield name, good
        yield name, None


@pytest.mark.parametrize(("name", "value"), list(wrong_values()))
def test_a_wrong_value_is_refused_when_it_is_built(name: str, value: Any) -> None:
    """The message names the setting and says what it must be."""
    with pytest.raises(
        ValueError, match=rf": {name} is .*; (it must|in .* must|in .* the size of)"
    ):
        replace(tiny("ntm-ff"), **{name: value})


def of_memory(setting: Field[Any]) -> bool:
    """Whether only networks with memory have this setting."""
    return bool(setting.metadata.get("of_memory"))


CONTRADICTIONS: list[tuple[str, dict[str, Any], str]] = [
    ("lstm", {"default_locations": 24}, "default_locations is 24"),
    ("lstm", {"locations": (24,)}, "locations is 24"),
    ("lstm", {"locations": (0, 24)}, "locations is 0,24"),
    ("lstm", {"validation": (Trial((3,), 16, 2),)}, "validation is 3:16:2"),
    ("lstm", {"evaluation": (Trial((3,), 16, 2),)}, "evaluation is 3:16:2"),
    ("ntm-ff", {"default_locations": 0}, "default_locations is 0"),
    ("ntm-ff", {"locations": (0,)}, "locations is 0"),
    ("ntm-ff", {"locations": (24, 0)}, "locations is 24,0"),
    ("ntm-ff", {"read_heads": 0}, "read_heads is 0"),
    ("ntm-lstm", {"write_heads": 0}, "write_heads is 0"),
    ("ntm-ff", {"validation": (Trial((3,), 0, 2),)}, "validation is 3:0:2"),
    ("ntm-ff", {"validation": ()}, "validation is empty"),
    ("ntm-ff", {"initial_memory": "positional"}, "memory_width is 6; it must be at least 10"),
    ("ntm-ff", {"initial_memory": "learned"}, "validation is 3:16:2; in 3:16:2, locations must"),
    ("ntm-ff", {"initial_memory": "learned", "locations": (24, 128)}, "locations is 24,128"),
    ("ntm-ff", {"initial_memory": "learned", "default_locations": 32}, "locations is 24"),
    (
        "ntm-ff",
        {"task": "ngrams"},
        "validation is 3:16:2; in 3:16:2, the size of ngrams is its bits and context",
    ),
    ("ntm-ff", {"task": "associative-recall", "evaluation": (Trial((1,), 9, 2),)}, "at least 2"),
    ("ntm-ff", {"expected_targets": True}, "expected_targets is True"),
    ("ntm-ff", {"clip_ratio": 0.5}, "clip_ratio is 0.5; it must be 0 or at least 1"),
]


@pytest.mark.parametrize("setting", [each for each in fields(Configuration) if of_memory(each)])
@pytest.mark.parametrize(
    "name", [name for name, each in ARCHITECTURES.items() if not each.has_memory]
)
def test_a_setting_without_effect_is_refused(name: str, setting: Field[Any]) -> None:
    """A network without memory is not trained as if it had heads."""
    for value in setting.metadata["choices"] or (2, 5):
        if value != setting.default:
            wrong: dict[str, Any] = {setting.name: value}
            with pytest.raises(
                ValueError, match=rf"{setting.name} is .*since {name} has no memory"
            ):
                replace(tiny(name), **wrong)


def test_the_settings_of_the_memory_are_declared() -> None:
    """Of the sizes of a network, the rest are those of every controller, and N."""
    used = {setting.name for setting in fields(Configuration) if of_memory(setting)}
    of_heads = {each.name for each in fields(Sizes)} & set(SETTINGS) - used

    assert used == {"read_heads", "write_heads", "memory_width", "gate_bias", "initial_memory"}
    assert of_heads == {"controller_size", "layers", "locations"}


@pytest.mark.parametrize(("architecture", "settings", "message"), CONTRADICTIONS)
def test_settings_that_contradict_each_other_are_refused(
    architecture: str, settings: dict[str, Any], message: str
) -> None:
    """Each is allowed by itself, but not with the task, the network or another setting."""
    with pytest.raises(ValueError, match=message):
        replace(tiny(architecture), **settings)


@pytest.mark.parametrize(
    "row", [*CONFIGURATIONS.values(), *PAPER.values()], ids=lambda row: row.optimiser + row.name
)
def test_every_setting_can_be_written_as_text(row: Configuration) -> None:
    """What errors show of a setting is what `--set` takes: each row comes back from its texts."""
    ours = CONFIGURATIONS["copy-lstm" if row.architecture == "lstm" else "copy-ntm-ff"]
    other = replace(ours, task=row.task, architecture=row.architecture, **changed(row))
    texts = {
        name: text.partition(f"{name} is ")[2].partition(" there")[0].strip("'")
        for name, text in differences(other, row).items()
    }

    assert other.with_settings(texts) == row


def changed(row: Configuration) -> dict[str, Any]:
    """What has to fit the row's task."""
    return {"validation": row.validation[:1], "evaluation": (), "locations": row.locations} | {
        name: getattr(row, name) for name in ("default_locations", "initial_memory")
    }


def test_differences_name_both_values() -> None:
    """Each setting that differs is there once, with its value there and here."""
    here = tiny("ntm-ff")
    there = replace(here, batch=9, validation=(Trial((3,), 16, 2), Trial((5,), 24, 1)))

    assert differences(here, there) == {
        "batch": "batch is 9 there, and 4 here",
        "validation": "validation is 3:16:2,5:24:1 there, and 3:16:2 here",
    }
    assert differences(here, here) == {}
