"""All hyper-parameters of every task and architecture: ours and the paper's, in two tables."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from export.architectures import ARCHITECTURES
from export.configuration import Configuration, Trial
from ntm_tasks import Purpose, Task

COPY_VALIDATION = (Trial((20,), 128, 64), Trial((120,), 128, 32), Trial((1000,), 1024, 4))
COPY_CHOICE = (Trial((1000,), 1024, 300),)
COPY_EVALUATION = (
    *(Trial((length,), 128, 1000) for length in (10, 20, 30, 50, 120)),
    Trial((1000,), 1024, 100),
)
REPEAT_VALIDATION = (
    Trial((10, 10), 128, 64),
    Trial((20, 10), 128, 32),
    Trial((10, 12), 128, 32),
    Trial((10, 15), 128, 32),
    Trial((10, 20), 128, 32),
)
REPEAT_CHOICE = (Trial((10, 10), 128, 1000), Trial((20, 10), 128, 300))
REPEAT_FF_VALIDATION = (Trial((10, 10), 128, 200), Trial((10, 20), 128, 32))
REPEAT_FF_CHOICE = (Trial((10, 10), 128, 1000), Trial((10, 20), 128, 300))
REPEAT_EVALUATION = tuple(
    Trial(size, 128, 1000) for size in ((10, 10), (20, 10), (10, 12), (10, 15), (10, 20))
)
RECALL_VALIDATION = tuple(Trial((items,), 128, 128) for items in (6, 12, 15, 20))
RECALL_FF_VALIDATION = (Trial((6,), 128, 128), Trial((12,), 128, 128), Trial((20,), 128, 500))
RECALL_CHOICE = (Trial((20,), 128, 10_000),)
RECALL_EVALUATION = tuple(
    Trial((items,), 128, 1000) for items in (2, 3, 4, 5, 6, 8, 10, 12, 15, 20)
)
NGRAMS_VALIDATION = (Trial((200, 5), 64, 200),)
NGRAMS_CHOICE = (Trial((200, 5), 64, 1000),)
NGRAMS_EVALUATION = (Trial((200, 5), 64, 2000),)
SORT_VALIDATION = (Trial((20,), 64, 200),)
SORT_FF_EVALUATION = tuple(
    Trial((items,), locations, 1000)
    for items, locations in ((10, 24), (20, 24), (25, 32), (20, 32), (20, 64))
)
SORT_EVALUATION = tuple(Trial((items,), 64, 1000) for items in (10, 20, 25))


def _baseline(trials: tuple[Trial, ...]) -> tuple[Trial, ...]:
    """Return the trials for a network without memory, without those that need a larger memory."""
    return tuple(trial._replace(locations=0) for trial in trials if trial.locations <= 128)


CONFIGURATIONS = {
    configuration.name: configuration
    for configuration in (
        Configuration(
            "copy",
            "ntm-lstm",
            controller_size=100,
            learning_rate=0.003,
            locations=(24, 128),
            blank_rate=0.1,
            report_every=400,
            updates=4000,
            validation=COPY_VALIDATION,
            choice=COPY_CHOICE,
            evaluation=COPY_EVALUATION,
        ),
        Configuration(
            "copy",
            "ntm-ff",
            controller_size=100,
            learning_rate=0.003,
            locations=(24, 128),
            blank_rate=0.1,
            report_every=400,
            updates=6000,
            validation=COPY_VALIDATION,
            evaluation=COPY_EVALUATION,
        ),
        Configuration(
            "copy",
            "lstm",
            controller_size=256,
            layers=3,
            locations=(0,),
            default_locations=0,
            blank_rate=0.1,
            learning_rate=0.002,
            adam_epsilon=1e-6,
            clip_norm=0.2,
            batch=64,
            updates=15625,
            validation=_baseline(COPY_VALIDATION),
            evaluation=_baseline(COPY_EVALUATION),
        ),
        Configuration(
            "copy",
            "dnc",
            controller_size=100,
            learning_rate=0.003,
            locations=(24, 128),
            blank_rate=0.1,
            report_every=200,
            updates=4000,
            validation=COPY_VALIDATION[:2],  # a link matrix of 1,024 x 1,024 takes minutes
            evaluation=(*COPY_EVALUATION[:-1], Trial((1000,), 1024, 10)),
        ),
        Configuration(
            "repeat-copy",
            "ntm-lstm",
            controller_size=100,
            initial_memory="periodic",
            gate_bias=0.0,
            learning_rate=0.003,
            batch=16,
            locations=(24, 128),
            blank_rate=0.1,
            updates=20000,
            report_every=400,
            validation=REPEAT_VALIDATION[:2],
            choice=REPEAT_CHOICE,
            pass_bits=0.05,
            evaluation=REPEAT_EVALUATION,
        ),
        Configuration(
            "repeat-copy",
            "ntm-ff",
            controller_size=100,
            initial_memory="periodic",
            gate_bias=0.0,
            learning_rate=0.003,
            decay=0.6,
            batch=16,
            locations=(24, 128),
            blank_rate=0.1,
            updates=48000,
            report_every=200,
            validation=REPEAT_FF_VALIDATION,
            choice=REPEAT_FF_CHOICE,
            pass_bits=0.1,
            evaluation=REPEAT_EVALUATION,
        ),
        Configuration(
            "repeat-copy",
            "lstm",
            controller_size=256,
            layers=3,
            locations=(0,),
            default_locations=0,
            batch=64,
            learning_rate=0.002,
            adam_epsilon=1e-6,
            clip_norm=0.2,
            blank_rate=0.1,
            updates=15625,
            report_every=100,
            validation=_baseline(REPEAT_VALIDATION),
            evaluation=_baseline(REPEAT_EVALUATION),
        ),
        Configuration(
            "repeat-copy",
            "dnc",
            controller_size=100,
            learning_rate=0.003,
            batch=16,
            locations=(32,),
            blank_rate=0.1,
            updates=12000,
            report_every=400,
            validation=REPEAT_VALIDATION,
            evaluation=REPEAT_EVALUATION,
        ),
        Configuration(
            "associative-recall",
            "ntm-lstm",
            controller_size=100,
            learning_rate=0.003,
            locations=(32,),
            updates=3000,
            validation=RECALL_VALIDATION,
            evaluation=RECALL_EVALUATION,
        ),
        Configuration(
            "associative-recall",
            "ntm-ff",
            controller_size=256,
            gate_bias=0.0,
            learning_rate=0.002,
            decay=0.6,
            locations=(32, 128),
            updates=9000,
            report_every=200,
            validation=RECALL_FF_VALIDATION,
            choice=RECALL_CHOICE,
            pass_bits=0.05,
            evaluation=RECALL_EVALUATION,
        ),
        Configuration(
            "associative-recall",
            "lstm",
            controller_size=256,
            layers=3,
            locations=(0,),
            default_locations=0,
            learning_rate=0.002,
            adam_epsilon=1e-6,
            clip_norm=0.2,
            batch=64,
            updates=15625,
            validation=_baseline(RECALL_VALIDATION),
            evaluation=_baseline(RECALL_EVALUATION),
        ),
        Configuration(
            "associative-recall",
            "dnc",
            controller_size=100,
            learning_rate=0.003,
            locations=(32,),
            updates=6000,
            report_every=200,
            validation=RECALL_VALIDATION,
            evaluation=RECALL_EVALUATION,
        ),
        Configuration(
            "ngrams",
            "ntm-lstm",
            controller_size=100,
            initial_memory="positional",
            gate_bias=0.0,
            locations=(64,),
            default_locations=64,
            learning_rate=0.003,
            adam_epsilon=1e-8,
            clip_norm=0.2,
            clip_ratio=1.5,
            batch=16,
            decay=0.4,
            expected_targets=True,
            curriculum=3000,
            curriculum_cost=0.68,
            report_every=200,
            updates=12000,
            validation=NGRAMS_VALIDATION,
            choice=NGRAMS_CHOICE,
            evaluation=NGRAMS_EVALUATION,
        ),
        Configuration(
            "ngrams",
            "ntm-ff",
            controller_size=100,
            initial_memory="learned",
            gate_bias=3.0,
            locations=(64,),
            default_locations=64,
            learning_rate=0.002,
            adam_epsilon=1e-8,
            clip_norm=0.2,
            clip_ratio=1.5,
            batch=16,
            decay=0.4,
            expected_targets=True,
            curriculum=2000,
            curriculum_cost=0.68,
            report_every=200,
            updates=12000,
            validation=NGRAMS_VALIDATION,
            choice=NGRAMS_CHOICE,
            evaluation=NGRAMS_EVALUATION,
        ),
        Configuration(
            "ngrams",
            "lstm",
            controller_size=128,
            layers=3,
            locations=(0,),
            default_locations=0,
            adam_epsilon=1e-6,
            batch=64,
            learning_rate=0.003,
            decay=0.4,
            expected_targets=True,
            curriculum=700,
            curriculum_cost=0.68,
            updates=15625,
            validation=_baseline(NGRAMS_VALIDATION),
            evaluation=_baseline(NGRAMS_EVALUATION),
        ),
        Configuration(
            "priority-sort",
            "ntm-lstm",
            controller_size=100,
            read_heads=4,
            write_heads=4,
            initial_memory="positional",
            gate_bias=0.0,
            locations=(64,),
            default_locations=64,
            learning_rate=0.003,
            decay=0.5,
            adam_epsilon=1e-6,
            relapse_bits=64.0,
            curriculum=3000,
            batch=16,
            updates=48000,
            report_every=300,
            validation=SORT_VALIDATION,
            evaluation=SORT_EVALUATION,
        ),
        Configuration(
            "priority-sort",
            "ntm-ff",
            controller_size=256,
            read_heads=4,
            write_heads=4,
            locations=(24,),  # with room to spare, heads place vectors by priority and stay there
            default_locations=24,
            learning_rate=0.001,
            adam_epsilon=1e-6,
            relapse_bits=64.0,
            curriculum=3000,
            updates=20000,
            report_every=200,
            validation=(Trial((20,), 24, 100), Trial((20,), 64, 100)),
            evaluation=SORT_FF_EVALUATION,
        ),
        Configuration(
            "priority-sort",
            "lstm",
            controller_size=128,
            layers=3,
            locations=(0,),
            default_locations=0,
            adam_epsilon=1e-6,
            learning_rate=0.002,
            batch=64,
            updates=15625,
            report_every=200,
            validation=_baseline(SORT_VALIDATION),
            evaluation=_baseline(SORT_EVALUATION),
        ),
    )
}


def _gru(task: str, controller_size: int) -> Configuration:
    """Return the LSTM's settings for a GRU with about as many parameters, a million sequences."""
    lstm = CONFIGURATIONS[f"{task}-lstm"]
    updates = 1_000_000 // lstm.batch
    return replace(lstm, architecture="gru", controller_size=controller_size, updates=updates)


def _transformer(task: str, controller_size: int, updates: int) -> Configuration:
    """
    Return the settings of a Transformer with about as many parameters as the NTM with an LSTM.

    Both keep a sequence outside their parameters, in a memory or a cache. An LSTM and a GRU keep it
    in their units, and need more of these.
    """
    return replace(
        CONFIGURATIONS[f"{task}-lstm"],
        architecture="transformer",
        layers=4,
        controller_size=controller_size,
        learning_rate=0.003,
        adam_epsilon=1e-6,
        clip_norm=0.2,
        batch=32,
        updates=updates,
        report_every=400,
    )


CONFIGURATIONS |= {
    configuration.name: configuration
    for configuration in (
        _gru("copy", 296),
        _gru("repeat-copy", 296),
        _gru("associative-recall", 296),
        _gru("ngrams", 147),
        _gru("priority-sort", 147),
        _transformer("copy", 30, 31250),
        _transformer("repeat-copy", 30, 31250),
        _transformer("associative-recall", 30, 31250),
        _transformer("ngrams", 29, 8000),
        _transformer("priority-sort", 44, 31250),
    )
}


def of_task(task: Task, architecture: str) -> Configuration:
    """
    Return the settings for a task that has no row for an architecture.

    They are those that most rows have. The network is chosen and measured by sequences as large as
    the largest of training.
    """
    has_memory = ARCHITECTURES[architecture].has_memory
    locations = 128 if has_memory else 0

    def trial(purpose: Purpose, sequences: int) -> tuple[Trial, ...]:
        available = task.available(purpose, task.largest)
        count = sequences if available is None else min(sequences, available)
        return (Trial(task.largest, locations, count),)

    settings: dict[str, Any] = {
        "controller_size": 100,
        "locations": (locations,),
        "default_locations": locations,
        "learning_rate": 0.003,
        "validation": trial(Purpose.VALIDATION, 128),
        "evaluation": trial(Purpose.EVALUATION, 1000),
    }
    defaults = {each.name: each.default for each in fields(Configuration)} | settings
    for name, allowed in ARCHITECTURES[architecture].allows.items():
        if defaults[name] not in allowed:
            settings[name] = allowed[0]
    return Configuration(task.name, architecture, **settings)


def _paper(
    task: str, architecture: str, heads: int, size: int, learning_rate: float, layers: int = 1
) -> Configuration:
    """Return a row of the paper's tables 1 to 3, with the optimiser of its section 4.6."""
    ours = CONFIGURATIONS[f"{task}-{architecture}"]
    has_memory = ARCHITECTURES[architecture].has_memory
    locations = 128 if has_memory else 0
    memory: dict[str, Any] = {
        "read_heads": heads,
        "write_heads": heads,
        "initial_memory": "learned",
        "gate_bias": 0.0,
    }

    def of_that_memory(trials: tuple[Trial, ...]) -> tuple[Trial, ...]:
        # A learned memory has no other size.
        return tuple(
            trial._replace(locations=locations) for trial in trials if trial.locations <= 128
        )

    return Configuration(
        task,
        architecture,
        controller_size=size,
        layers=layers,
        locations=(locations,),
        default_locations=locations,
        **(memory if has_memory else {}),
        optimiser="rmsprop",
        learning_rate=learning_rate,
        decay=0.0,
        clip_norm=0.0,
        clip_value=10.0,
        batch=1,
        updates=1_000_000,
        report_every=2000,
        validation=of_that_memory(ours.validation),
        evaluation=of_that_memory(ours.evaluation),
    )


PAPER = {
    configuration.name: configuration
    for configuration in (
        _paper("copy", "ntm-ff", 1, 100, 1e-4),
        _paper("copy", "ntm-lstm", 1, 100, 1e-4),
        _paper("copy", "lstm", 0, 256, 3e-5, layers=3),
        _paper("repeat-copy", "ntm-ff", 1, 100, 1e-4),
        _paper("repeat-copy", "ntm-lstm", 1, 100, 1e-4),
        _paper("repeat-copy", "lstm", 0, 512, 3e-5, layers=3),
        _paper("associative-recall", "ntm-ff", 4, 256, 1e-4),
        _paper("associative-recall", "ntm-lstm", 1, 100, 1e-4),
        _paper("associative-recall", "lstm", 0, 256, 1e-4, layers=3),
        _paper("ngrams", "ntm-ff", 1, 100, 3e-5),
        _paper("ngrams", "ntm-lstm", 1, 100, 3e-5),
        _paper("ngrams", "lstm", 0, 128, 1e-4, layers=3),
        _paper("priority-sort", "ntm-ff", 8, 512, 3e-5),
        _paper("priority-sort", "ntm-lstm", 5, 100, 3e-5, layers=2),
        _paper("priority-sort", "lstm", 0, 128, 3e-5, layers=3),
    )
}
"""The paper's sizes and optimiser. The initial memory is learned (the paper's "bias values")."""
