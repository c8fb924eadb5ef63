"""Rows, rounds, quantiles, and the output."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import __main__ as command_line
from bench import plot
from bench.quantiles import quantiles
from bench.row import BenchmarkUnavailable, Options, Row, alternated


def row(ratio: float, goal: float, *, at_least: bool) -> Row:
    """Return a row with one sample."""
    return Row("name", "workload", ratio, goal, at_least, {"one, us": [1.0, 3.0, 2.0]})


@pytest.mark.parametrize(
    ("ratio", "goal", "at_least", "reached", "margin"),
    [
        (0.9, 0.9, True, True, 1.0),
        (0.45, 0.9, True, False, 0.5),
        (1.25, 1.25, False, True, 1.0),
        (2.5, 1.25, False, False, 0.5),
    ],
)
def test_a_row_is_held_to_its_goal_from_the_right_side(
    ratio: float, goal: float, at_least: bool, reached: bool, margin: float
) -> None:
    """A throughput reaches its goal from below, a time from above, and the goal itself counts."""
    found = row(ratio, goal, at_least=at_least)
    assert (found.reached, found.margin) == (reached, margin)
    assert ("ok" if reached else "short") in found.text()


def test_a_rows_text_has_medians_and_spread() -> None:
    """The text has the median, the smallest and the largest value of each measure."""
    assert "2.0   (1.0 - 3.0)" in row(1, 1, at_least=True).text()


def test_measures_alternate_and_the_first_round_does_not_count() -> None:
    """Measures are taken once a round, in order; names of several values are joined."""
    taken: list[str] = []

    def one() -> float:
        taken.append("one")
        return float(len(taken))

    def other() -> dict[str, float]:
        taken.append("other")
        return {"a": 7.0, "b": float(len(taken))}

    samples = alternated(2, {"one": one, "other, ": other})
    assert taken == ["one", "other"] * 3
    assert samples == {"one": [3.0, 5.0], "other, a": [7.0, 7.0], "other, b": [4.0, 6.0]}


def test_quantiles_are_in_microseconds() -> None:
    """The quantiles of the times 1 to 1,001 ms are in microseconds."""
    found = quantiles([number / 1000 for number in range(1, 1002)])
    expected = {"p50, us": 501e3, "p90, us": 901e3, "p99, us": 991e3, "p99.9, us": 1000e3}
    assert found == pytest.approx(expected)


def test_the_picture_shows_every_row(tmp_path: Path) -> None:
    """The picture is a PNG, for rows that reach their goal and rows that do not."""
    path = tmp_path / "folder" / "bench.png"
    plot.draw([row(0.5, 1, at_least=True), row(0.1, 4, at_least=False)], path, "title")
    assert path.read_bytes().startswith(b"\x89PNG")


def test_a_benchmark_that_cannot_run_says_why_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A benchmark that cannot run is named, and the others are written."""

    def missing(_: Options) -> Row:
        raise BenchmarkUnavailable("it is not Tuesday")

    benchmarks = {"absent": missing, "present": lambda _: [row(2, 1, at_least=True)]}
    monkeypatch.setattr(command_line, "BENCHMARKS", benchmarks)
    files = [f"--json={tmp_path / 'rows.json'}", f"--plot={tmp_path / 'rows.png'}"]
    assert command_line.main(["absent", "present", *files]) == 0
    printed = capsys.readouterr().out
    assert "absent                  not run: it is not Tuesday" in printed
    written = json.loads((tmp_path / "rows.json").read_text())
    assert [each["ratio"] for each in written["rows"]] == [2]
    assert written["rows"][0]["samples"] == {"one, us": [1, 3, 2]}
    assert written["versions"]["onnxruntime"]
    assert (tmp_path / "rows.png").exists()


def test_an_unknown_benchmark_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """The error names the unknown benchmark and the known ones."""
    assert command_line.main(["speed"]) == 2
    assert "unknown benchmarks: speed; choose from step-latency, " in capsys.readouterr().err
