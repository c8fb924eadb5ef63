"""Recordings as files: what is written is read back, and nothing else is."""

from __future__ import annotations

import io
import json
import tracemalloc
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
import pytest

from ntm_client import Client
from ntm_client.values import ModelVersion
from ntm_lab.recordings.files import RecordingError, load, save
from ntm_lab.recordings.recording import Recording, record, record_task
from ntm_tasks import TaskSequence
from tests.support.recorded import recording

Arrays = dict[str, Any]


def parts(made: Recording) -> dict[str, Any]:
    """Everything in a recording, arrays as their type, shape and bytes."""

    def plain(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return value.dtype.str, value.shape, value.tobytes()
        if hasattr(value, "items"):
            return {name: plain(each) for name, each in value.items()}
        return value

    fields = {name: getattr(made, name) for name in made.__dataclass_fields__}
    for name in ("before", "after"):
        fields[name] = fields[name] and vars(fields[name])
    return {name: plain(value) for name, value in fields.items()}


def written(made: Recording, path: Path) -> Arrays:
    """The arrays of the file of a recording."""
    save(made, path)
    return dict(np.load(path, allow_pickle=False))


def edited(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Write the file of a recording with other facts."""
    arrays = written(recording(), path)
    facts = json.loads(arrays["recording"].tobytes())
    edit(facts)
    arrays["recording"] = np.frombuffer(json.dumps(facts).encode(), np.uint8)
    np.savez(path, **arrays)


@pytest.mark.parametrize("made", [recording(), recording(heads=3), recording(heads=0)])
def test_a_recording_comes_back_to_the_bit(tmp_path: Path, made: Recording) -> None:
    """Every field and every array is as it was saved, and as immutable."""
    save(made, tmp_path / "made.npz")
    opened = load(tmp_path / "made.npz")

    assert parts(opened) == parts(made)
    assert not opened.outputs.flags.writeable


def test_what_a_server_told_comes_back(tmp_path: Path, client: Client) -> None:
    """A task's sequence, a user's own inputs, and an optimum, as they were recorded."""
    sequence = TaskSequence.draw("copy", (5,), seed=1)
    with client.create_session("copy") as session:
        task = replace(record_task(session, sequence), optimum=sequence.target / np.float32(3))
        own = record(session, sequence.inputs)
    with client.create_session("bare") as session:
        bare = record(session, np.ones((2, 3), np.float32))

    for made in (task, own, bare):
        save(made, tmp_path / "made.npz")
        assert parts(load(tmp_path / "made.npz")) == parts(made)


def test_versions_are_the_servers(tmp_path: Path) -> None:
    """A recording tells the version that made it, and not which others its server had then."""
    model = replace(recording().model, versions=(ModelVersion("1" * 64, True, True),))
    made = replace(recording(), model=model)
    save(made, tmp_path / "made.npz")

    assert made.model == load(tmp_path / "made.npz").model == recording().model


def test_numpy_reads_it_alone(tmp_path: Path) -> None:
    """The file is an .npz of float32 arrays and one of JSON, with the model's facts."""
    made = recording()
    arrays = written(made, tmp_path / "made.npz")
    facts = json.loads(arrays["recording"].tobytes())

    assert facts["format"] == 1
    assert facts["model"]["content_hash"] == made.model.content_hash
    assert facts["marks"] == {"5": "delimiter"}
    np.testing.assert_array_equal(arrays["trace.add_vector"], made.traces["add_vector"])
    assert {array.dtype.str for name, array in arrays.items() if name != "recording"} == {"<f4"}


def test_equal_recordings_are_equal_files(tmp_path: Path) -> None:
    """Nothing of the moment is in the file; its name stays what was asked for."""
    save(recording(), tmp_path / "first")
    save(recording(), tmp_path / "second")

    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda facts: facts.update(format=2), "format 2, and this version reads 1"),
        (lambda facts: facts.pop("format"), "names no format"),
        (lambda facts: facts.update(steps=11), "inputs is float32 of shape"),
        (lambda facts: facts.update(steps=0), "it has 0 steps"),
        (lambda facts: facts.update(locations=8), "read_weighting is float32 of shape"),
        (lambda facts: facts.update(size=None), "mask, target"),
        (lambda facts: facts.update(size=[1.5]), "not whole numbers"),
        (lambda facts: facts.update(first_step=None), "first_step is None"),
        (lambda facts: facts.update(marks={"12": "end"}), "not words of some of 12 steps"),
        (lambda facts: facts.update(marks={"1": 1}), "not words"),
        (lambda facts: facts.update(marks={"1_0": "end"}), "not words of some of 12 steps"),
        (lambda facts: facts.update(marks={"x": "end"}), "not words of some of 12 steps"),
        (lambda facts: facts["model"].update(name="a\nb"), "name is 'a.nb', which has characters"),
        (lambda facts: facts["model"].update(input_width=0), "not one or more of each"),
        (lambda facts: facts["model"].update(output_width=-1), "not one or more of each"),
        (lambda facts: facts["model"].pop("task"), "Model should have name"),
        (lambda facts: facts["model"].update(input_width=True), "input_width is True, not of type"),
        (lambda facts: facts["model"].update(name=["x"]), "not of type str"),
        (lambda facts: facts["model"]["traces"].pop(), "should not have, trace.add_vector"),
        (lambda facts: facts["model"]["traces"].append(1), "TraceTensor should have"),
        (lambda facts: facts["model"]["state"].append({"name": "x"}), "shape is None"),
    ],
)
def test_facts_that_do_not_fit_are_refused(
    tmp_path: Path, edit: Callable[[dict[str, Any]], object], reason: str
) -> None:
    """Wrong facts are refused with an error that says what is wrong."""
    edited(tmp_path / "made.npz", edit)

    with pytest.raises(RecordingError, match=reason):
        load(tmp_path / "made.npz")


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("outputs", lambda array: array[:, :5], r"outputs is float32 of shape \[12, 5\]"),
        ("outputs", lambda array: array.astype(np.float64), "outputs is float64"),
        ("outputs", lambda array: array * np.inf, "outputs has a value that is not finite"),
        ("after.memory", lambda array: array[:, :2], "after.memory is float32 of shape"),
        ("mask", lambda array: array * 0, "its mask is not 1 in the steps whose output counts"),
        ("mask", lambda array: array * 7, "its mask is not 1 in the steps whose output counts"),
        ("recording", lambda array: array[:-1], "no recording, or is damaged"),
        ("recording", lambda _: np.frombuffer(b"[1]", np.uint8), "names no format"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(
    tmp_path: Path, name: str, change: Callable[[Any], Any], reason: str
) -> None:
    """Each has to be what the model's facts say, and finite."""
    arrays = written(recording(), tmp_path / "made.npz")
    with np.errstate(invalid="ignore"):
        arrays[name] = change(arrays[name])
    np.savez(tmp_path / "made.npz", **arrays)

    with pytest.raises(RecordingError, match=reason):
        load(tmp_path / "made.npz")


@pytest.mark.parametrize("shape", [(2**27,), (1, 2**27)])
@pytest.mark.parametrize("name", ["inputs", "recording"])
def test_an_array_of_another_size_is_refused_unread(
    tmp_path: Path, name: str, shape: tuple[int, ...]
) -> None:
    """A small file can hold what fills the memory once it is unpacked."""
    path = tmp_path / "made.npz"
    arrays = written(recording(), path)
    kept = {other: values for other, values in arrays.items() if other != name}
    np.savez(path, **kept)
    with ZipFile(path, "a", ZIP_DEFLATED) as archive, archive.open(f"{name}.npy", "w") as member:
        header = {"descr": arrays[name].dtype.str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(member, header)
        member.write(bytes(2**27))
    tracemalloc.start()

    with pytest.raises(RecordingError, match=r"has more than|inputs is float32 of shape"):
        load(path)
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    """Another .npz, an .npy, a text and nothing; an object array is not even unpickled."""
    path = tmp_path / "foreign.npz"
    np.savez(path, inputs=np.ones(3))
    with pytest.raises(RecordingError, match="has no array 'recording'"):
        load(path)
    content = io.BytesIO()
    np.save(content, np.ones(3))
    for foreign in (content.getvalue(), b"step,value\n", b""):
        path.write_bytes(foreign)
        with pytest.raises(RecordingError, match="not a zip file"):
            load(path)
    np.savez(path, recording=np.array([asdict(recording().model)], object))
    with pytest.raises(RecordingError, match="allow_pickle=False"):
        load(path)
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "nowhere.npz")


def test_a_damaged_file_is_refused_or_harmless(tmp_path: Path) -> None:
    """Cut off anywhere or with bytes flipped, it is refused, or is still the whole recording."""
    path = tmp_path / "made.npz"
    made = recording(steps=6, locations=4)
    save(made, path)
    whole, wanted = path.read_bytes(), parts(made)
    random = np.random.default_rng(1)
    refused = 0
    for trial in range(600):
        damaged = bytearray(whole)
        if trial % 3 == 0:
            del damaged[int(random.integers(len(whole))) :]
        else:
            for place in random.integers(len(whole), size=trial % 3):
                damaged[place] ^= 1 << int(random.integers(8))
        path.write_bytes(damaged)
        try:
            opened = load(path)
        except RecordingError:
            refused += 1
        else:
            assert parts(opened) == wanted

    assert refused > 400
