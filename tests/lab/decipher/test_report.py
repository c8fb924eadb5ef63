"""The report: its verdict, the results behind it, and its text."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from shutil import copyfile
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from ntm_client import Client, InvalidRequest
from ntm_lab.cli import main
from ntm_lab.commands.decipher import OVERVIEW_NAME, PROGRAM_NAME
from ntm_lab.decipher.markdown import markdown, table
from ntm_lab.decipher.overview import Timed, overview
from ntm_lab.decipher.report import Report, decipher, decipher_recordings
from ntm_lab.decipher.samples import ServedNetwork, Stage, in_range
from ntm_lab.recordings.files import save
from ntm_lab.recordings.recording import Recording
from tests.support.served import MODELS, served

pytestmark = pytest.mark.timeout(300)  # the first of all waits until a mechanism is fitted

SEQUENCES = 20


@pytest.fixture(scope="module")
def copied(shipped: Client) -> list[Recording]:
    """Recordings of a model that copies."""
    sequences = in_range("copy", 24, 0, Stage.INDUCTION)
    return ServedNetwork(shipped, "copy-ntm-ff").recordings(sequences)


@pytest.fixture(scope="module")
def report(shipped: Client) -> Report:
    """The report on a model whose program is found."""
    return decipher(shipped, "copy-ntm-ff", sequences=SEQUENCES)


def test_copy_is_deciphered(report: Report) -> None:
    """Its program agrees in every bit, also at six times the length, and where the memory ends."""
    assert report.verdict == "program found: it explains 100.0% of 20 fresh sequences"
    assert report.program is report.candidate.program is not None
    assert report.in_range is not None
    assert [each.differing for each in (report.in_range, *report.longer)] == [0] * 6
    assert [each.sizes for each in report.longer] == ["40", "60", "80", "100", "120"]
    assert report.search is not None
    assert [(each.size, each.wraps_around) for each in report.search.found] == [((129,), True)]
    assert [effect.share > 0.9 for effect in report.effects[:3]] == [True] * 3
    assert [hardening.changed for hardening in report.hardenings] == [0, 0]
    assert [measure.best[1] for measure in report.measures] == [1.0]
    assert {habit.head for habit in report.habits} == {"read head 1", "write head 1"}
    assert sum(habit.share for habit in report.habits) == pytest.approx(2, abs=0.2)


def test_the_overview_has_a_row_for_each_reading(report: Report) -> None:
    """The program's row has the network's name and the time, and the mechanism's is below it."""
    rows = [row for row in overview([Timed(report, 61.4)]).splitlines() if row.startswith("| ")]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]

    assert len(cells) == 4
    program, mechanism = cells[2:]
    assert program[:2] == ["copy-ntm-ff", "a program on a tape"]
    assert (program[3], program[-1]) == ("20 of 20", "61")
    assert mechanism[:2] == ["", "a mechanism"]
    assert report.mechanism is not None
    both = ((program[5], report.effects), (mechanism[5], report.mechanism.effects))
    for cell, effects in both:
        assert f"{effects[0].kind} {effects[0].share:.1%}" in cell


def printed_python(text: str) -> str:
    """The Python in a report."""
    (python,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    return str(python)


def test_the_report_tells_all_of_it(report: Report) -> None:
    """Program, the paper's beside it, Python that runs, and every number's place."""
    text = markdown(report)

    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    assert headings == [
        "copy-ntm-ff: program found",
        "The program",
        "Does it do what the network does?",
        "Counter-examples",
        "Causes",
        "The mechanism",
        "With hard heads",
        "What the paper saw in pictures",
        "What the heads do",
    ]
    assert report.model.content_hash in text
    assert "while input delimiter not seen do" in text
    assert "The memory wraps around: the same program on a ring of 128 locations" in text
    defined: dict[str, Any] = {}
    exec(printed_python(text), defined)  # noqa: S102 - it is what is tested
    inputs = np.zeros((3, 9))
    inputs[0, [1, 4]] = inputs[1, 8] = 1
    assert list(defined["run"](inputs))[2] == [0, 1, 0, 0, 1, 0, 0, 0]


@pytest.mark.parametrize(
    ("agreeing", "constant", "explained", "found"),
    [
        (20, 0, 1.0, True),
        (18, 0, 0.9, True),
        (17, 0, 0.85, False),
        # Of the five sequences that a constant does not give, four are explained.
        (19, 15, 0.8, False),
        (20, 20, 0.0, False),
    ],
)
def test_the_verdict_is_by_what_a_constant_does_not_explain(
    report: Report, agreeing: int, constant: int, explained: float, found: bool
) -> None:
    """The share of agreeing sequences counts only beyond what a constant explains."""
    assert report.in_range is not None
    judged = replace(report.in_range, agreeing=agreeing, constant_agreeing=constant)
    other = replace(report, in_range=judged)

    assert other.explained == pytest.approx(explained)
    assert (other.found, other.program is not None) == (found, found)
    assert other.verdict.startswith("program found" if found else "no program found: of the best")
    assert ("```python" in markdown(other)) == found


@pytest.mark.parametrize(
    ("exact", "agreeing_exact", "constant", "found"),
    [(16, 16, 0, True), (16, 15, 0, False), (9, 9, 0, False), (16, 16, 8, False)],
)
def test_a_program_may_differ_where_the_network_errs(
    report: Report, exact: int, agreeing_exact: int, constant: int, found: bool
) -> None:
    """It has to agree in 99 % of the sequences without a mistake, and these have to be many."""
    assert report.in_range is not None
    judged = replace(
        report.in_range,
        agreeing=agreeing_exact,
        agreeing_exact=agreeing_exact,
        network_exact=exact,
        constant_agreeing=constant,
    )

    assert replace(report, in_range=judged).found == found


def test_a_network_without_heads_runs_no_program(shipped: Client) -> None:
    """The verdict says why, and the network is still measured."""
    report = decipher(shipped, "copy-lstm", sequences=SEQUENCES)

    assert report.verdict == "no program found: the network has no heads and no memory"
    assert (report.found, report.explained, report.search, report.effects) == (False, 0, None, ())
    assert (report.hardenings, report.measures, report.habits) == ((), (), ())
    assert report.in_range is not None
    assert report.in_range.network_wrong > 0
    text = markdown(report)
    assert text.startswith("# copy-lstm: no program found\n")
    assert "```" not in text


def broken(model: str, shuffled: bool) -> bytes:
    """A model whose matrices are shuffled, or drowned in noise as large as they are."""
    luck = np.random.default_rng(0)
    network = onnx.load(MODELS / model / "model.onnx")
    for tensor in network.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and values.ndim > 1:
            if shuffled:
                other = luck.permutation(values.ravel()).reshape(values.shape)
            else:
                other = values + luck.normal(0, values.std(), values.shape).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(other, tensor.name))
    content: bytes = network.SerializeToString()
    return content


@pytest.mark.slow
@pytest.mark.parametrize("shuffled", [True, False])
def test_a_broken_network_runs_no_program(tmp_path: Path, shuffled: bool) -> None:
    """
    Where its weights were destroyed, a false program would be worse than none; so would a
    mechanism, which could be fitted to any network.
    """
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "model.onnx").write_bytes(broken("copy-ntm-lstm", shuffled))
    with served(tmp_path) as client:
        report = decipher(client, "copy", sequences=SEQUENCES)

    assert not report.found
    assert report.explained < 0.5
    assert report.verdict.startswith("no program found: ")
    assert report.mechanism is None


def test_recordings_alone_tell_of_a_program(copied: list[Recording]) -> None:
    """
    From recordings alone the parts that need the network are missing, and the verdict says so.
    """
    report = decipher_recordings(copied)

    assert report.verdict == "program found: it explains 100.0% of the recordings' bits"
    assert (report.in_range, report.longer, report.search, report.effects) == (None, (), None, ())
    text = markdown(report)
    assert "## Does it do what the network does?" not in text
    assert "`ntm decipher --recordings` with the same files makes this again." in text
    assert report.measures[0].best[1] == 1.0


def test_recordings_that_cannot_tell(copied: list[Recording]) -> None:
    """Too few recordings, or recordings of two memory sizes, or of no task, are refused."""
    with pytest.raises(InvalidRequest, match="3 different sequences cannot tell; give record"):
        decipher_recordings([*copied[:3], copied[0]])
    odd = replace(copied[0], mask=np.ones(len(copied[0].inputs), np.float32))
    with pytest.raises(InvalidRequest, match="no sequence of copy: other steps count"):
        decipher_recordings([*copied[:5], odd])
    with pytest.raises(InvalidRequest, match=r"not of one .* 64 locations"):
        decipher_recordings([*copied[:4], replace(copied[4], locations=64)])


def test_what_cannot_be_judged(shipped: Client, client: Client) -> None:
    """Zero sequences, or an unknown task, are refused."""
    with pytest.raises(InvalidRequest, match="at least 1 sequence, not 0"):
        decipher(shipped, "copy-ntm-ff", sequences=0)
    with pytest.raises(
        InvalidRequest, match="sums has the task 'sums', and sequences can be drawn of copy, "
    ):
        decipher(client, "sums")


@pytest.mark.parametrize("option", ["--sequences=5", "--locations=9", "--seed=1"])
def test_what_recordings_cannot_follow_is_refused(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No sequence is run with recordings, so an option about that would be ignored."""
    (tmp_path / "any.npz").touch()

    assert main(["decipher", "--recordings", str(tmp_path / "any.npz"), option]) == 2
    assert "are of sequences to run, not of --recordings" in capsys.readouterr().err


def test_the_command_prints_and_writes(
    copied: list[Recording], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Markdown is what is printed; JSON has every number and the program."""
    files = [tmp_path / f"{number}.npz" for number in range(8)]
    for recording, file in zip(copied, files, strict=False):
        save(recording, file)
    written, facts = tmp_path / "program.md", tmp_path / "program.json"
    options = ["--json", str(facts), "--markdown", str(written)]

    assert main(["decipher", "--recordings", *map(str, files), *options]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("# copy-ntm-ff: program found\n")
    assert written.read_text() == printed
    found = json.loads(facts.read_text())
    assert (found["found"], found["explained"]) == (True, 1.0)
    assert found["candidate"]["program"]["delay"] == 1
    assert found["measures"][0]["values"] == {
        "read head 1 (a step before the output), write head 1": 1.0
    }


def test_the_command_writes_into_the_folders_of_models(
    shipped: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    Of the server's models, those that have a folder there with the same network; a line for each.
    One with other heads than an NTM's is named at the end.
    """
    for name in ("copy-lstm", "copy-dnc"):
        (tmp_path / name).mkdir()
        copyfile(MODELS / name / "model.onnx", tmp_path / name / "model.onnx")
    options = ["--sequences", "5", "--server", shipped.target]

    assert main(["decipher", "--all", str(tmp_path), *options]) == 0
    assert capsys.readouterr().out == (
        "copy-lstm: no program found: the network has no heads and no memory\n"
    )
    written = sorted(path.name for path in tmp_path.rglob("*.md"))
    assert written == [PROGRAM_NAME, OVERVIEW_NAME]
    text = (tmp_path / OVERVIEW_NAME).read_text()
    assert text.endswith(
        "Without heads, and so without a program: copy-lstm.\n\n"
        "Left out, for their heads are not those of an NTM: copy-dnc.\n"
    )
    assert main(["decipher", "--all", str(tmp_path), "--json", "x.json", *options]) == 2
    assert "are for one model" in capsys.readouterr().err


def test_the_command_leaves_the_folders_of_other_networks(
    shipped: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A network of the same name that is not the server's keeps its report, and is said."""
    other, none = tmp_path / "copy-lstm", tmp_path / "ngrams-lstm"
    for folder in (other, none):
        folder.mkdir()
        (folder / PROGRAM_NAME).write_text("its own")
    copyfile(MODELS / "copy-ntm-ff" / "model.onnx", other / "model.onnx")

    options = ["--sequences", "5", "--server", shipped.target]
    assert main(["decipher", "--all", str(tmp_path), *options]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.splitlines() == [
        f"copy-lstm is left out: {other / 'model.onnx'} is not the server's network",
        f"ngrams-lstm is left out: there is no {none / 'model.onnx'} to tell that it is the "
        "server's network",
    ]
    assert [(folder / PROGRAM_NAME).read_text() for folder in (other, none)] == ["its own"] * 2


def test_a_table_is_in_columns() -> None:
    """A table is aligned as plain text too."""
    assert table(("a", "longer"), [("1,000", "2")]) == (
        "| a     | longer |\n| ----- | ------ |\n| 1,000 | 2      |"
    )


@pytest.mark.parametrize("folder", sorted(path.parent for path in MODELS.glob("*/model.onnx")))
def test_every_model_that_ships_has_its_program(folder: Path) -> None:
    """
    Or why there is none, of the very weights in the folder: `make programs` writes it. It leaves
    out the networks whose heads are not an NTM's.
    """
    card = json.loads((folder / "card.json").read_text())
    if card["architecture"] == "dnc":
        assert not (folder / PROGRAM_NAME).exists()
        return
    text = (folder / PROGRAM_NAME).read_text()

    assert text.startswith(f"# {folder.name}: ")
    assert f"Model {card['content_hash']}, " in text


@pytest.mark.parametrize(
    "name",
    [
        "copy-ntm-lstm",
        "copy-ntm-ff",
        "repeat-copy-ntm-lstm",
        "repeat-copy-ntm-ff",
        "associative-recall-ntm-lstm",
    ],
)
def test_what_is_printed_does_what_the_network_does(shipped: Client, name: str) -> None:
    """The Python of PROGRAM.md, run by itself, gives every bit of fresh sequences."""
    program: dict[str, Any] = {}
    exec(printed_python((MODELS / name / PROGRAM_NAME).read_text()), program)  # noqa: S102 - likewise
    network = ServedNetwork(shipped, name)
    sequences = in_range(network.model.task, 20, 12345, Stage.AGREEMENT)
    answers = network.outputs([sequence.inputs for sequence in sequences])

    for sequence, answer in zip(sequences, answers, strict=True):
        own = np.array(list(program["run"](sequence.inputs.tolist())), np.float32)
        assert np.array_equal(sequence.answer(own), sequence.answer(answer))
