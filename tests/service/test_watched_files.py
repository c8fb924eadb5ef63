"""Files that are replaced while their value is in use."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from service.errors import FileInvalid
from service.watched_files import WatchedFiles
from tests.conftest import Clock


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with a number in it."""
    found = tmp_path / "number"
    found.write_text("1")
    return found


def number(path: Path, clock: Clock) -> WatchedFiles[int]:
    """The number in the file."""
    return WatchedFiles("the_number", [path], lambda: int(path.read_text()), clock)


def test_a_replaced_file_is_read_again(path: Path, clock: Clock) -> None:
    """It may be written over, or another file may be moved to its place."""
    found = number(path, clock)
    values = [found.value()]
    path.write_text("22")
    values.append(found.value())
    other = path.with_name("other")
    other.write_text("33")
    other.rename(path)
    values.append(found.value())

    assert values == [1, 22, 33]


def test_a_link_that_leads_elsewhere_is_followed(path: Path, clock: Clock) -> None:
    """Kubernetes replaces mounted files in this way."""
    link = path.with_name("link")
    link.symlink_to(path)
    found = number(link, clock)
    other = path.with_name("other")
    other.write_text("2")
    link.unlink()
    link.symlink_to(other)

    assert found.value() == 2


def test_a_file_is_read_only_when_it_changed(path: Path, clock: Clock) -> None:
    """While the file does not change, its value is not read again."""
    reads = []
    found = WatchedFiles("the_number", [path], lambda: reads.append(path.read_text()), clock)
    for _ in range(3):
        found.value()

    assert reads == ["1"]


def test_a_wrong_file_keeps_the_value_and_is_logged(
    path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """The log has it once, and again after 10 s; a right file is then used at once."""
    found = number(path, clock)
    path.write_text("half-wri")
    with caplog.at_level(logging.INFO):
        assert [found.value() for _ in range(3)] == [1, 1, 1]
        assert [record.message for record in caplog.records] == ["files not taken over"]
        assert "invalid literal" in str(vars(caplog.records[0])["why"])
        clock.seconds += 10.0
        found.value()
        assert len(caplog.records) == 2
        path.write_text("4")
        assert found.value() == 4
    assert [record.message for record in caplog.records][2:] == ["files taken over"]


def test_a_file_that_is_gone_keeps_the_value(path: Path, clock: Clock) -> None:
    """The last value counts until the file is back."""
    found = number(path, clock)
    path.unlink()
    assert found.value() == 1
    path.write_text("5")
    assert found.value() == 5


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "the_number: cannot read .*number: No such file or directory"),
        ("x", "the_number: invalid literal"),
    ],
)
def test_the_first_reading_says_what_is_wrong(
    path: Path, clock: Clock, content: str | None, message: str
) -> None:
    """The error has the setting's name."""
    path.unlink()
    if content is not None:
        path.write_text(content)
    with pytest.raises(FileInvalid, match=message):
        number(path, clock)
