"""The batch check: what it finds, and how networks are stepped after it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from service.errors import ModelInvalid
from service.models.bound_run import BoundRun
from service.models.loading import load, try_out
from service.models.runtime import Network
from service.models.slab import Slab
from tests.support.rich_models import (
    ONE_ROW,
    PLAIN,
    of_one_row,
    of_the_batch,
    rich,
    with_branches,
)
from tests.support.served import MODELS
from tests.support.tiny_models import ledger


def test_rows_that_do_not_depend_on_others_are_stepped_together() -> None:
    """And a lone row is a batch of its own, where it gets the bits that it gets among others."""
    network = load(rich(), "cpu")

    assert network.batched
    assert [network.batch(rows, 0) for rows in (1, 2, 3, 32)] == [1, 2, 4, 32]


def test_a_network_whose_rows_depend_on_others_steps_one_row_a_run() -> None:
    """The reason names the smallest batch in which results differ."""
    network = load(of_the_batch(), "cpu")

    assert not network.batched
    assert network.why_alone == "a session alone and one of 2 in a batch get different results"
    assert [network.batch(rows, 0) for rows in (1, 2, 32)] == [1, 1, 1]


def test_a_network_that_a_server_loads_without_a_check_is_taken_at_its_word() -> None:
    """The check is part of `load`, not of a network."""
    assert Network(of_the_batch(), "cpu").batched


def test_a_graph_of_one_row_is_stepped_one_row_a_run() -> None:
    """Its spec says so, and the check leaves it as it is."""
    try_out(of_one_row())
    network = load(of_one_row(), "cpu")
    slab = Slab(network, 0)
    slot = slab.acquire()
    bound = slab.bind(1, frozenset(), 2)
    bound.seat([slot])
    bound.inputs[:] = [[[1, 2]], [[3, 4]]]
    bound.run()

    assert (network.batched, network.why_alone) == (False, "its spec says so")
    assert bound.output[:, 0].tolist() == [[1, 2], [4, 6]]


def test_a_graph_of_one_row_is_refused_if_its_spec_says_that_it_takes_batches() -> None:
    """The sentence says which axis has which size, and what to do."""
    words = r"'x' has shape \[1, 2\] in the graph.*; export it with a batch of any size as the fir"
    with pytest.raises(ModelInvalid, match=words):
        try_out(of_one_row(PLAIN))
    assert replace(PLAIN, batched=False) == ONE_ROW


def test_branches_are_stepped_many_ticks_a_run() -> None:
    """What they read of the graph around them is found in each tick."""
    try_out(with_branches())
    slab = Slab(load(with_branches(), "cpu"), 0)
    slot = slab.acquire()
    bound = slab.bind(1, frozenset(), 4)
    bound.seat([slot])
    bound.inputs["x"] = [1, 2]
    bound.inputs["adds"][:, 0] = [True, True, False, True]
    bound.run()

    assert bound.output[:, 0].tolist() == [[10, 20], [20, 40], [10, 20], [20, 40]]


def test_a_run_that_writes_what_it_only_reads_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here the rows that pad a batch write a session's slot, and not the spare row."""

    def careless(bound: BoundRun, slot: int, row: int, others: int) -> None:
        bound.sources[:] = bound.slots[:] = others
        bound.sources[row] = bound.slots[row] = slot

    monkeypatch.setattr(BoundRun, "seat_one", careless)
    with pytest.raises(ModelInvalid, match="changes the state of sessions that it does not step"):
        load(ledger(), "cpu")


def test_a_network_that_takes_no_one_is_checked_with_zeros() -> None:
    """A table of one row has no row 1; that is no reason to refuse the model."""
    proto = onnx.load_model_from_string(rich())
    (table,) = (each for each in proto.graph.initializer if each.name == "table")
    table.CopyFrom(numpy_helper.from_array(np.zeros((1, 3), np.float32), "table"))

    assert load(proto.SerializeToString(), "cpu").batched


@pytest.mark.parametrize(
    "name", ["ledger", *sorted(path.parent.name for path in MODELS.glob("copy-*/model.onnx"))]
)
def test_the_trainers_networks_are_stepped_together(name: str) -> None:
    """One of each architecture: no result depends on the batch."""
    content = ledger() if name == "ledger" else (MODELS / name / "model.onnx").read_bytes()

    assert load(content, "cpu").why_alone == ""
