"""The command line, from training to a measured model."""

from __future__ import annotations

import io
import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch

from export import __main__ as command_line
from export import (
    card,
    comparison,
    configurations,
    curve,
    report,
    sweep,
    to_onnx,
    training,
    verification,
)
from export.configuration import Configuration
from export.network import Network
from export.training import Run
from ntm_tasks import TASKS
from service.models import rehearsal
from service.spec import Float32, ModelSpec
from tests.export.conftest import tiny


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    """The table's row for ntm-ff is a tiny network, verified over few steps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(configurations.CONFIGURATIONS, "copy-ntm-ff", tiny("ntm-ff"))
        patch.setattr(card, "VERIFIED_LOCATIONS", (16, 20))
        patch.setattr(verification.verify, "__defaults__", ((1, 7), 20))
        yield


Converted = dict[tuple[str, bytes], bytes]


@pytest.fixture(scope="module", autouse=True)
def conversions() -> Iterator[Converted]:
    """
    The graph of each network that was converted, by its spec and its parameters. The same network
    is not converted again, since that takes seconds.
    """
    made: Converted = {}
    convert = to_onnx.convert

    def once(network: Network, spec: ModelSpec) -> onnx.ModelProto:
        values = [value.numpy().tobytes() for value in network.state_dict().values()]
        key = (spec.to_json(), b"".join(values))
        if key not in made:
            made[key] = convert(network, spec).SerializeToString()
        return onnx.load_from_string(made[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(to_onnx, "convert", once)
        yield made


@pytest.fixture(autouse=True)
def own_threads() -> Iterator[None]:
    """Commands choose how many threads PyTorch has."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of seed 2, and the model in `m` that was exported from it: neither to be changed."""
    folder = tmp_path_factory.mktemp("runs")
    assert command_line.main([*TRAIN, str(folder)]) == 0
    run_folder = folder / "copy-ntm-ff" / "seed-2"
    assert command_line.main(["export", str(run_folder), "--models", str(folder / "m")]) == 0
    return folder


TRAIN = ("train", "copy", "--architecture", "ntm-ff", "--seed", "2", "--runs")


def test_train_export_evaluate(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The three commands in a row leave a model's folder and print its measures."""
    run_folder = shared / "copy-ntm-ff" / "seed-2"
    folder = tmp_path / "copy-ntm-ff"
    shutil.copytree(shared / "m" / "copy-ntm-ff", folder)
    assert {"model.onnx", "card.json", "curve.csv", "curve.png"} == {
        path.name for path in folder.iterdir()
    }
    capsys.readouterr()
    arguments = ["evaluate", str(folder), "--sizes", "2", "3", "--locations", "16"]
    assert command_line.main([*arguments, "--sequences", "4"]) == 0

    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [row[:3] for row in rows[1:]] == [["2", "16", "4"], ["3", "16", "4"]]
    described = json.loads((folder / "card.json").read_text())
    (seed,) = described["seeds"]
    assert f"{seed['results'][0]['bits_per_sequence']:.6f}" == rows[2][3]
    assert (described["shipped_seed"], seed["seed"], seed["sequences"]) == (2, 2, 16)
    assert command_line.main(["evaluate", str(folder)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "as on the card"
    described["seeds"][0]["results"][0]["bits_per_sequence"] += 1
    (folder / "card.json").write_text(json.dumps(described))
    assert command_line.main(["evaluate", str(folder)]) == command_line.DISAGREED
    assert capsys.readouterr().err == "ntm-export: the results differ from the card at 3\n"
    loaded, best = card.load(folder).state_dict(), Run.load(run_folder).best
    assert all(torch.equal(value, best[name]) for name, value in loaded.items())
    (folder / "model.onnx").write_bytes(b"another")
    with pytest.raises(ValueError, match="not the file that the card describes"):
        card.load(folder)


def test_nothing_is_written_when_verification_fails(
    shared: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """An export that differs from PyTorch says so and leaves no folder."""
    monkeypatch.setattr(comparison, "LARGEST_DIFFERENCE", 0.0)
    monkeypatch.setattr(comparison, "ROUNDINGS", 0.01)
    run_folder = shared / "copy-ntm-ff" / "seed-2"

    assert (
        command_line.main(["export", str(run_folder), "--models", str(tmp_path / "m")])
        == command_line.DISAGREED
    )
    assert "differs from PyTorch at batch" in capsys.readouterr().err
    assert not (tmp_path / "m").exists()


def test_a_run_of_another_configuration_is_not_continued(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same folder is refused to other numbers, instead of mixing two runs."""
    command_line.main([*TRAIN, str(tmp_path)])

    assert command_line.main([*TRAIN, str(tmp_path), "--set", "batch=5"]) == command_line.FAILED
    assert (
        "holds a run with other settings: batch is 4 there, and 5 here" in capsys.readouterr().err
    )


@pytest.mark.parametrize("setting", ["batch", "batch=x", "task=1", "nothing=1"])
def test_a_setting_that_is_no_number_is_refused(setting: str, tmp_path: Path) -> None:
    """Only numbers of the configuration can be replaced, and only by numbers."""
    assert command_line.main([*TRAIN, str(tmp_path), "--set", setting]) == 2


@pytest.mark.parametrize("command", [[], ["train"], ["evaluate"], ["export"]])
def test_every_command_has_help(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """--help explains each command."""
    assert command_line.main([*command, "--help"]) == 0
    assert "Usage: ntm-export" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message", "exit_status"),
    [
        (["train"], 'Command "train" parameter TASK requires an argument.', 2),
        (["train", "tetris"], "there is no task 'tetris'; there are copy, repeat-copy,", 2),
        (["sweep", "--seed", "1"], "Unknown option: --seed. Did you mean --seeds?", 2),
        (["sweep", "copy-ntm-ff", "--set", "a=2", "b=2"], "to replace a setting: --set b=2", 2),
        (["evaluate", ".", "--threads", "two"], "'two' is not a whole number", 2),
    ],
)
def test_a_mistyped_command_is_said_in_one_line(
    arguments: list[str], message: str, exit_status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """The value and the option are named, and nothing is trained."""
    assert command_line.main(arguments) == exit_status
    error = capsys.readouterr().err
    assert error.startswith("ntm-export: ")
    assert message in error
    assert "See `" not in error or re.search(r"[^.?][.?] See `ntm-export", error)
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize(
    ("command", "then"),
    [
        ("train", "; the same command goes on from the last checkpoint, if there is one"),
        ("module", ""),
    ],
)
def test_a_command_that_is_interrupted_says_how_to_go_on(
    command: str,
    then: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Only trainings have checkpoints."""

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("export.commands.train.load", interrupted)
    monkeypatch.setattr("export.modules.command.find_function", interrupted)
    assert command_line.main([command, "somewhat"]) == 130
    assert capsys.readouterr().err == f"stopped{then}\n"


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_command_that_a_signal_ends_says_so(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It cleans up as after Ctrl-C, and its status is the one that a shell gives for the signal."""
    number = getattr(signal, name)
    before = signal.getsignal(number)
    monkeypatch.setattr(report, "write", lambda _: signal.raise_signal(number))

    assert command_line.main(["report", "--models", str(tmp_path)]) == 128 + number
    assert capsys.readouterr().err == "stopped\n"
    assert signal.getsignal(number) is before


def test_a_signal_that_is_ignored_ends_no_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As under nohup, which ignores SIGHUP."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        monkeypatch.setattr(report, "write", lambda _: signal.raise_signal(signal.SIGHUP))
        assert command_line.main(["report", "--models", str(tmp_path)]) == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_help_loads_no_torch() -> None:
    """Which commands there are is said at once, not after the seconds that torch takes to load."""
    code = "import sys; from export.__main__ import main; main(['--help']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    *help_, modules = done.stdout.splitlines()
    assert any("train" in line for line in help_)
    assert not {"torch", "numpy", "grpc", "matplotlib"} & set(modules.split())


def test_train_loads_only_what_trains() -> None:
    """What converts, compares, draws and asks servers takes as long to load as PyTorch."""
    code = "import sys, export.commands.train; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    modules = set(done.stdout.split())
    assert "torch" in modules
    assert not {"onnx", "onnxscript", "onnxruntime", "matplotlib", "grpc"} & modules


def test_export_ships_the_seed_that_is_best(tmp_path: Path) -> None:
    """The card and the curves tell of every seed; the model is of the best one."""
    for seed in ("1", "2", "3"):
        run = [*TRAIN, str(tmp_path)]
        run[run.index("--seed") + 1] = seed
        assert command_line.main(run) == 0
    folder = tmp_path / "copy-ntm-ff"
    assert command_line.main(["export", str(folder), "--models", str(tmp_path / "m")]) == 0

    runs = {seed: Run.load(folder / f"seed-{seed}") for seed in (1, 2, 3)}
    described = card.read(tmp_path / "m" / "copy-ntm-ff")
    assert [each["seed"] for each in described["seeds"]] == [1, 2, 3]
    assert card.shipped(described)["choice"]["bits"] == min(
        each["choice"]["bits"] for each in described["seeds"]
    )
    for each in described["seeds"]:
        quality = runs[each["seed"]].best_quality
        assert quality is not None
        assert each["validation"]["bits"] == -quality.negative_bits
    assert all(each["finished"] and len(each["results"]) == 1 for each in described["seeds"])
    assert described["configuration"]["table"] == "ours"
    curves = curve.read_csv(tmp_path / "m" / "copy-ntm-ff" / "curve.csv")
    assert {seed: len(points) for seed, points in curves.items()} == {1: 2, 2: 2, 3: 2}
    assert curves[2][1].sequences == 16
    assert curves[2][1].bits_per_sequence == pytest.approx(
        runs[2].curve[1].bits_per_sequence, rel=1e-5
    )


def test_runs_of_unlike_configurations_are_not_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Seeds trained with other settings are refused, and nothing is written."""
    command_line.main([*TRAIN, str(tmp_path)])
    other = [*TRAIN, str(tmp_path), "--set", "learning_rate=0.5"]
    other[other.index("--seed") + 1] = "3"
    command_line.main(other)

    arguments = ["export", str(tmp_path / "copy-ntm-ff"), "--models", str(tmp_path / "m")]
    assert command_line.main(arguments) == command_line.FAILED
    assert "not of one configuration" in capsys.readouterr().err
    assert not (tmp_path / "m").exists()


def test_a_model_that_a_server_cannot_serve_is_not_written(
    shared: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A spec that disagrees with its graph passes the verification, but not the server's code."""
    spec_of = to_onnx.spec_of

    def with_a_head_too_many(network: Network, configuration: Configuration) -> ModelSpec:
        spec = spec_of(network, configuration)
        first, *others = spec.traces
        return replace(spec, traces=(replace(first, heads=9), *others))

    monkeypatch.setattr(to_onnx, "spec_of", with_a_head_too_many)
    run_folder = shared / "copy-ntm-ff" / "seed-2"

    assert (
        command_line.main(["export", str(run_folder), "--models", str(tmp_path)])
        == command_line.FAILED
    )
    error = capsys.readouterr().err
    assert "copy-ntm-ff/model.onnx: trace 'read_weighting'" in error
    assert len(error.splitlines()) == 1
    assert contents(tmp_path) == {}


def test_a_server_that_steps_otherwise_is_noticed(
    shared: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Outputs of the server that are not those of the file end the export."""
    rehearse = rehearsal.rehearse

    def otherwise(folder: Path, model: str, inputs: Float32) -> dict[int, Float32]:
        found = rehearse(folder, model, inputs)
        found[25][-1] += 1e-3
        return found

    monkeypatch.setattr(rehearsal, "rehearse", otherwise)
    run_folder = shared / "copy-ntm-ff" / "seed-2"

    assert (
        command_line.main(["export", str(run_folder), "--models", str(tmp_path)])
        == command_line.DISAGREED
    )
    assert "differ from the model's by 0.001 at 25 locations" in capsys.readouterr().err
    assert contents(tmp_path) == {}


@pytest.mark.timeout(600)  # four exports
def test_another_network_is_not_written_over(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], conversions: Converted
) -> None:
    """The same network may be written again; another needs another name, or --replace."""
    other = [*TRAIN, str(tmp_path)]
    other[other.index("--seed") + 1] = "3"
    assert command_line.main(other) == 0
    models = tmp_path / "m"
    shutil.copytree(shared / "m", models)
    (models / "copy-ntm-ff" / "PROGRAM.md").write_text("the program of seed 2")
    before = contents(models)
    again = ["export", str(shared / "copy-ntm-ff" / "seed-2"), "--models", str(models)]
    export = ["export", str(tmp_path / "copy-ntm-ff"), "--models", str(models)]

    conversions.clear()  # a second conversion has to give the same file
    assert command_line.main(again) == 0
    assert contents(models) == before
    capsys.readouterr()
    assert command_line.main(export) == command_line.FAILED
    error = capsys.readouterr().err
    assert "copy-ntm-ff holds another network" in error
    assert "--name" in error
    assert "--replace" in error
    assert contents(models) == before
    assert command_line.main([*export, "--name", "copy-of-mine"]) == 0
    assert {name: before[name] for name in before} == {
        name: content for name, content in contents(models).items() if name in before
    }
    capsys.readouterr()
    assert command_line.main([*export, "--replace"]) == 0
    after = contents(models)
    assert after["copy-ntm-ff/model.onnx"] == after["copy-of-mine/model.onnx"]
    assert after["copy-ntm-ff/model.onnx"] != before["copy-ntm-ff/model.onnx"]
    assert "PROGRAM.md is of the network before" in capsys.readouterr().out


@pytest.mark.parametrize("file", card.WRITTEN)
def test_files_of_another_model_are_not_written_over(
    shared: Path,
    tmp_path: Path,
    file: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each file that an export writes is refused in a folder that has no model of this content."""
    folder = tmp_path / "copy-ntm-ff"
    folder.mkdir()
    (folder / file).write_text("somebody else's")
    run_folder = shared / "copy-ntm-ff" / "seed-2"

    assert (
        command_line.main(["export", str(run_folder), "--models", str(tmp_path)])
        == command_line.FAILED
    )
    assert f"holds another network ({file})" in capsys.readouterr().err
    assert contents(tmp_path) == {f"copy-ntm-ff/{file}": b"somebody else's"}


def contents(folder: Path) -> dict[str, bytes]:
    """Every file in a folder, by its path there."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_training_goes_on_with_more_updates(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A finished run makes the further updates; fewer, and more with another batch, are refused."""
    command_line.main([*TRAIN, str(tmp_path)])
    more = [*TRAIN, str(tmp_path), "--set", "updates=8"]
    capsys.readouterr()
    assert command_line.main([*TRAIN, str(tmp_path)]) == 0
    assert "all 4 updates are made; --set updates=MORE goes on" in capsys.readouterr().out
    assert command_line.main([*more, "--set", "batch=9"]) == command_line.FAILED
    error = capsys.readouterr().err
    assert "batch is 4 there, and 9 here; updates is 4 there, and 8 here" in error
    assert command_line.main(more) == 0
    assert "going on from 16 sequences" in capsys.readouterr().out

    run = Run.load(tmp_path / "copy-ntm-ff" / "seed-2")
    assert (run.update, run.configuration.updates) == (8, 8)
    assert [point.sequences for point in run.curve] == [8, 16, 24, 32]
    assert command_line.main([*TRAIN, str(tmp_path)]) == command_line.FAILED
    assert "updates is 8 there, and 4 here" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--locations", "--sequences"])
def test_what_goes_with_sizes_is_refused_without_them(
    option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The trials of a card have their own numbers of locations and sequences."""
    assert command_line.main(["evaluate", "models/copy-ntm-ff", option, "24"]) == 2
    assert f"{option} goes with --sizes; give the sizes" in capsys.readouterr().err


def test_trainings_of_the_pages_have_settings_that_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each command of a page that trains a network of ours on a CPU begins to train it."""
    monkeypatch.setattr(training, "train", lambda run, folder, show: run)
    begun: list[str] = []
    for page in sorted(Path("docs").glob("*.md")):
        text = page.read_text("utf-8").replace("\\\n", " ")
        for line in re.findall(r"^ntm-export (train .*)$", text, re.MULTILINE):
            arguments = shlex.split(line, comments=True)
            is_own = "--architecture" in arguments and ":" in arguments[3]
            if arguments[1] in TASKS and not is_own and "cuda" not in arguments:
                runs = tmp_path / str(len(begun))
                assert command_line.main([*arguments, "--runs", str(runs)]) == 0, line
                begun.append(page.name)
    assert begun.count("models.md") == 2


def test_a_training_before_its_first_validation_is_not_exported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """There is no network to choose yet, and the message says after which update there is one."""
    folder = tmp_path / "copy-ntm-ff" / "seed-2"
    Run.new(configurations.CONFIGURATIONS["copy-ntm-ff"], 2).save(folder)

    assert (
        command_line.main(["export", str(folder), "--models", str(tmp_path / "m")])
        == command_line.FAILED
    )
    assert "first validation is after update 2; train it on" in capsys.readouterr().err
    assert not (tmp_path / "m").exists()


def damaged(good: bytes) -> dict[str, bytes]:
    """Bytes that are no checkpoint, for many reasons."""
    saved = torch.load(io.BytesIO(good), weights_only=True)
    texts = {"empty": b"", "text": b"hello", "cut": good[: len(good) // 2], "zip": good[:100]}
    setting = {**saved["configuration"], "batch": 0}
    newer = {**saved["configuration"], "colour": "red"}
    objects: dict[str, object] = {
        "a list": [1, 2],
        "without a seed": {name: value for name, value in saved.items() if name != "seed"},
        "of no network": {**saved, "network": {}},
        "of a wrong setting": {**saved, "configuration": setting},
        "of an unknown setting": {**saved, "configuration": newer},
        "of a wrong curve": {**saved, "curve": [(1, 2)]},
    }
    for name, value in objects.items():
        buffer = io.BytesIO()
        torch.save(value, buffer)
        texts[name] = buffer.getvalue()
    return texts


def test_a_damaged_checkpoint_is_named_by_every_command(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    """Train, export and sweep say in one line which file it is; the sweep makes the others."""
    good = (shared / "copy-ntm-ff" / "seed-2" / "checkpoint.pt").read_bytes()
    path = tmp_path / "copy-ntm-ff" / "seed-2" / "checkpoint.pt"
    path.parent.mkdir(parents=True)
    monkeypatch.setattr(sweep, "_train", lambda *training: 1)
    for why, content in damaged(good).items():
        path.write_bytes(content)
        for arguments in (
            [*TRAIN, str(tmp_path)],
            ["export", str(path.parent), "--models", str(tmp_path / "m")],
        ):
            assert command_line.main(arguments) == command_line.FAILED, why
            error = capsys.readouterr().err
            assert error == (
                f"ntm-export: {path} is damaged, or no checkpoint of this release of ntm-export; "
                "remove its folder to train anew\n"
            ), why
        assert command_line.main(["sweep", "copy-ntm-ff", "--seeds", "2", "--runs", str(tmp_path)])
        assert "failed: exit status 1" in capsys.readouterr().out, why


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b"\xff\xfe",
        b'{"seeds": [], "shipped_seed": 1}',
        b'{"task": "copy", "architecture": "lstm", "configuration": {}, "shipped_seed": 1, '
        b'"seeds": [{"seed": 1, "results": [{"size": "a", "locations": 1, "sequences": 1}]}]}',
        b"[" * 100_000,
    ],
)
@pytest.mark.parametrize("command", ["evaluate", "report"])
def test_a_damaged_card_is_named(
    shared: Path,
    tmp_path: Path,
    command: str,
    content: bytes,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The commands that read cards say which file is none."""
    folder = tmp_path / "copy-ntm-ff"
    shutil.copytree(shared / "m" / "copy-ntm-ff", folder)
    (folder / "card.json").write_bytes(content)

    arguments = [str(folder)] if command == "evaluate" else ["--models", str(tmp_path)]
    assert command_line.main([command, *arguments]) == command_line.FAILED
    error = capsys.readouterr().err
    assert error == (
        f"ntm-export: {folder / 'card.json'} is not a card that ntm-export wrote, or is damaged; "
        "export the model again\n"
    )


def test_a_card_of_another_network_is_not_compared_with(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Results that agree by chance would say nothing of the model beside the card."""
    folder = tmp_path / "copy-ntm-ff"
    shutil.copytree(shared / "m" / "copy-ntm-ff", folder)
    described = card.read(folder) | {"content_hash": "0" * 64}
    (folder / "card.json").write_text(json.dumps(described))

    assert command_line.main(["evaluate", str(folder)]) == command_line.FAILED
    error = capsys.readouterr().err
    named = folder / "model.onnx"
    assert error == (
        f"ntm-export: {named} is not the file that the card describes; export the model again\n"
    )


@pytest.mark.parametrize("missing", ["model.onnx", "card.json"])
def test_a_folder_without_a_models_files_is_not_evaluated(
    shared: Path, tmp_path: Path, missing: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file that is missing is named, and what to give instead."""
    folder = tmp_path / "copy-ntm-ff"
    shutil.copytree(shared / "m" / "copy-ntm-ff", folder)
    (folder / missing).unlink()

    assert command_line.main(["evaluate", str(folder)]) == command_line.FAILED
    error = capsys.readouterr().err
    assert error.startswith(f"ntm-export: {folder} has no {missing}; name the folder of a model")


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x07"])
def test_a_damaged_model_is_not_evaluated(
    shared: Path, tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    """What onnxruntime says of a file is said in one line, with the file's name."""
    folder = tmp_path / "copy-ntm-ff"
    shutil.copytree(shared / "m" / "copy-ntm-ff", folder)
    (folder / "model.onnx").write_bytes(content)

    assert command_line.main(["evaluate", str(folder)]) == command_line.FAILED
    error = capsys.readouterr().err
    named = folder / "model.onnx"
    assert error.startswith(f"ntm-export: {named}: onnxruntime cannot load the model")
    assert error.endswith("; export the model again\n")
    assert len(error.splitlines()) == 1


def test_a_sweep_does_not_take_a_run_of_other_settings_for_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The training is started, which says what differs, and fails."""
    command_line.main([*TRAIN, str(tmp_path), "--set", "batch=5"])

    def train(row: Configuration, seed: int, runs: Path, *_: object) -> int:
        return command_line.main([*TRAIN, str(runs)])

    monkeypatch.setattr(sweep, "_train", train)
    arguments = ["sweep", "copy-ntm-ff", "--seeds", "2", "--runs", str(tmp_path)]
    assert command_line.main(arguments) == command_line.DISAGREED
    said = capsys.readouterr()
    assert "batch is 5 there, and 4 here" in said.err
    assert "failed: exit status 2" in said.out


def test_a_folder_without_runs_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exporting an empty folder says what was looked for."""
    assert command_line.main(["export", str(tmp_path)]) == 2
    assert "has no checkpoint.pt and no folder seed-*" in capsys.readouterr().err


def test_a_seed_without_a_checkpoint_is_named(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A training that has not saved yet, beside another, is no file that the system misses."""
    shutil.copytree(shared / "copy-ntm-ff", tmp_path / "copy-ntm-ff")
    seed = tmp_path / "copy-ntm-ff" / "seed-1"
    seed.mkdir()
    arguments = ["export", str(seed.parent), "--models", str(tmp_path / "m")]
    assert command_line.main(arguments) == command_line.FAILED
    assert capsys.readouterr().err == (
        f"ntm-export: {seed} has no checkpoint.pt yet; train it, or remove the folder\n"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "clip_norm"], "'clip_norm' is not NAME=VALUE"),
        (["--set", "task=copy"], "'task' is not a setting"),
        (["--set", "colour=red"], "'colour' is not a setting"),
        (["--set", "batch=many"], "batch is 'many'; it must be a whole number"),
        (["--set", "initial_memory=random"], "constant or positional or periodic or learned"),
        (["--set", "optimiser=sgd"], "optimiser is 'sgd'; it must be adam or rmsprop"),
        (["--set", "batch=2", "--set", "batch=3"], "batch is set to 2 and to 3; set it once"),
    ],
)
def test_settings_that_are_none_are_refused(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A setting that does not exist, may not change or cannot be read is named."""
    assert command_line.main([*TRAIN, str(tmp_path), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_the_papers_settings_train_beside_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--paper takes the other table and another folder, and its optimiser resumes."""
    row = replace(configurations.PAPER["copy-ntm-ff"], updates=2, report_every=1)
    monkeypatch.setitem(configurations.PAPER, "copy-ntm-ff", row)
    assert command_line.main([*TRAIN, str(tmp_path), "--paper"]) == 0

    run = Run.load(tmp_path / "copy-ntm-ff-paper" / "seed-2")
    assert (run.update, run.configuration.optimiser) == (2, "rmsprop")
    assert run.configuration.initial_memory == "learned"


def test_a_size_of_another_task_is_refused(
    shared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two numbers for a task whose sizes have one are refused with their name."""
    folder = shared / "m" / "copy-ntm-ff"
    assert command_line.main(["evaluate", str(folder), "--sizes", "2x3"]) == 2
    assert "the size of copy is its length, not 2x3" in capsys.readouterr().err


def test_a_sweep_replaces_settings_of_each_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its trainings are started with them, and with them one is finished the next time."""
    commands: list[list[str]] = []

    def run(command: list[str], check: bool) -> subprocess.CompletedProcess[str]:
        commands.append(command[3:])
        return subprocess.CompletedProcess(command, command_line.main(command[3:]))

    monkeypatch.setattr(subprocess, "run", run)
    arguments = ["sweep", "copy-ntm-ff", "--seeds", "2", "--runs", str(tmp_path)]
    arguments += ["--set", "updates=1", "--set", "batch=3"]
    for state in ("finished", "finished before"):
        assert command_line.main(arguments) == 0
        assert capsys.readouterr().out.splitlines()[-2].endswith(f"  {state}")

    (command,) = commands
    assert command[-2:] == ["--set=updates=1", "--set=batch=3"]


def test_a_sweep_skips_what_is_finished_and_survives_what_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    Of three trainings one was finished before, one fails and one is made all the same; what is
    named twice is made once.
    """
    command_line.main([*TRAIN, str(tmp_path)])

    def train(row: Configuration, seed: int, runs: Path, *_: object) -> int:
        if seed == 7:
            return -9
        arguments = [*TRAIN, str(runs)]
        arguments[arguments.index("--seed") + 1] = str(seed)
        return command_line.main(arguments)

    monkeypatch.setattr(sweep, "_train", train)
    arguments = ["sweep", "copy-ntm-ff", "copy-ntm-ff", "--seeds", "2", "7", "3", "2"]
    assert command_line.main([*arguments, "--runs", str(tmp_path)]) == command_line.DISAGREED

    out = capsys.readouterr()
    rows = [line.split() for line in out.out.splitlines() if line.startswith("copy-ntm-ff  ")]
    assert [row[1] for row in rows] == ["2", "7", "3"]
    assert [" ".join(row[7:]) for row in rows] == [
        "finished before",
        "failed: killed by signal 9",
        "finished",
    ]
    assert "1 of 3 trainings failed" in out.err


def test_a_second_training_of_a_run_is_refused_while_the_first_one_lasts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says which folder is taken and writes no checkpoint; afterwards the run can be trained."""
    folder = tmp_path / "copy-ntm-ff" / "seed-2"
    with training.alone_in(folder):
        assert command_line.main([*TRAIN, str(tmp_path)]) == command_line.FAILED
        assert capsys.readouterr().err == (
            f"ntm-export: another process is training in {folder}; wait for it or stop it, or "
            "give another folder with --runs\n"
        )
        assert [each.name for each in folder.iterdir()] == [training.LOCK_NAME]

    assert command_line.main([*TRAIN, str(tmp_path)]) == 0


def test_a_sweep_trains_in_a_process_of_its_own(tmp_path: Path) -> None:
    """A training that cannot start is reported by its exit status."""
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "copy-ntm-ff").write_text("a file where a folder should be")
    (outcome,) = sweep.sweep([tiny("ntm-ff")], [1], tmp_path / "runs")

    assert (outcome.status, outcome.finished, outcome.run) == (2, False, None)
