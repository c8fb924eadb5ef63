"""Networks that run no program, and the bound on how often one is found in such."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench.confidence import largest_share
from bench.control_networks import KINDS, Kind, control, controls, recorded, shipped
from bench.controls import Judgement, judge, report
from ntm_client import Client
from ntm_lab.decipher.samples import ServedNetwork, Stage, in_range
from ntm_tasks import TASKS
from tests.support.served import MODELS


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks with random targets are forgotten after each test, since other tests list all tasks."""
    monkeypatch.setattr(TASKS, "_tasks", dict(TASKS))


def test_what_is_recorded_is_what_a_server_gives(shipped: Client) -> None:
    """Outputs, traces and the memory before the first step, for sequences of mixed lengths."""
    sequences = in_range("copy", 5, 0, Stage.INDUCTION)
    own = recorded(control(MODELS, "copy-ntm-ff", "as it ships", 0), sequences)
    served = ServedNetwork(shipped, "copy-ntm-ff").recordings(sequences)

    for one, other in zip(own, served, strict=True):
        assert one.outputs == pytest.approx(other.outputs, abs=1e-5)
        assert set(one.traces) == set(other.traces)
        for name, values in one.traces.items():
            assert values == pytest.approx(other.traces[name], abs=1e-4)
        assert one.before is not None
        assert other.before is not None
        assert np.array_equal(one.before.memory, other.before.memory)
        assert np.array_equal(one.before.write_weightings, other.before.write_weightings)


@pytest.mark.parametrize("kind", KINDS[:4])
def test_a_control_runs_no_program(kind: Kind) -> None:
    """A false program would be worse than none."""
    found = judge(control(MODELS, "copy-ntm-ff", kind, seed=3), count=32)

    assert (found.tape, found.table, found.found) == (False, None, False)
    assert found.explained < 0.5
    assert found.exact < 0.2


def test_an_lstm_runs_no_program() -> None:
    """It has no heads that could follow one."""
    found = judge(control(MODELS, "copy-lstm", "LSTM", seed=1), count=4)

    assert (found.found, found.reason) == (False, "the network has no heads and no memory")


def test_the_same_search_finds_a_program_where_there_is_one() -> None:
    """The controls would show nothing if it never found any."""
    found = judge(control(MODELS, "copy-ntm-ff", "as it ships", seed=0), count=32)
    assert found.tape
    assert found.exact == 1


@pytest.mark.slow
def test_the_same_search_finds_a_table_where_there_is_one() -> None:
    """A network that counts has one, and the same network with shuffled matrices has none."""
    real, broken = (
        judge(control(MODELS, "ngrams-ntm-ff", kind, seed=1), count=48)
        for kind in ("as it ships", "shuffled")
    )
    assert (real.table, real.tape) == (True, False)
    assert (broken.table, broken.tape) == (False, False)


def test_controls_are_other_networks_each_time() -> None:
    """Two seeds give two networks, and one seed gives the same one again."""
    one, other, again = (
        next(control(MODELS, "copy-ntm-ff", "shuffled", seed).network.parameters()).detach()
        for seed in (1, 2, 1)
    )
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


def test_every_model_with_heads_has_controls() -> None:
    """Of each kind as many as are asked for, and each LSTM once."""
    heads, baselines = shipped_names()
    made = [(each.model, each.kind) for each in controls(MODELS, each=1, trained=0)]

    assert made == [
        *((model, kind) for model in heads for kind in ("untrained", "shuffled", "noised")),
        *((model, "LSTM") for model in baselines),
    ]


def shipped_names() -> tuple[list[str], list[str]]:
    """The models with the heads of an NTM, and the LSTMs."""
    return shipped(MODELS, ("ntm-lstm", "ntm-ff")), shipped(MODELS, ("lstm",))


@pytest.mark.parametrize(
    ("false", "total", "bound"), [(0, 200, 0.01487), (0, 10, 0.2589), (2, 100, 0.0616), (5, 5, 1)]
)
def test_the_bound_is_that_of_clopper_and_pearson(false: int, total: int, bound: float) -> None:
    """With no case, 1 - 0.05^(1/n); else as in their tables."""
    assert largest_share(false, total) == pytest.approx(bound, rel=0.01)


def test_the_report_has_the_bound_and_what_came_closest(tmp_path: Path) -> None:
    """For each kind, the networks, the false programs, and the largest part explained."""
    found = [
        Judgement("shuffled", "copy-ntm-ff", 1, False, False, 0.12, "the best program explains", 1),
        Judgement("shuffled", "copy-ntm-ff", 2, False, False, -3.0, "the best program explains", 1),
        Judgement("untrained", "copy-ntm-ff", 1, True, None, 0.97, "a program explains", 1, 0.875),
    ]
    text = report(found, [], [], "python -m bench.controls --markdown FILE")

    assert "a tape was found in 1 of 3, a share of at most 86.5%" in text
    assert "a table of counts was found in 0 of 2, a share of at most 77.6%" in text
    assert "| shuffled  | 2      | 0 of 2             | 0 of 2" in text
    assert "12.0% (copy-ntm-ff, seed 1)" in text
    row = next(line for line in text.splitlines() if line.startswith("| copy-ntm-ff | untrained"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[2:] == ["1", "a program explains", "88%"]
