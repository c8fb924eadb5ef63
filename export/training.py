"""
Train a network on a task, with checkpoints from which a run resumes exactly.

Every update draws its sequences from a random stream of its own, seeded by the run's seed and the
number of the update. So a checkpoint needs no generator state, and an interrupted run makes the
same updates, bit for bit, as an uninterrupted one.

An update whose gradient is not finite is skipped. If the loss is not finite, or no update between
two points of the curve has a finite gradient, the run goes back to its last checkpoint and
continues with half the learning rate, at most `MAX_RESTARTS` times. With `relapse_bits`, it does
the same when the network has lost its task (a relapse). The card counts all three.

Sequences and first parameters are drawn on the CPU, so that a seed has the same ones on every
device, and a checkpoint can be continued on another device than the one that it was written on.
"""

from __future__ import annotations

import errno
import fcntl
import io
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from export.architectures import ARCHITECTURES, build
from export.arena import Arena
from export.configuration import METRICS, Configuration, Trial, differences
from export.device import CPU, device_of, title_of
from export.evaluation import Answers, TorchRunner, answers_of, evaluate, score
from export.network import Network, begin
from export.rmsprop import RmsProp
from ntm_tasks import TASKS, Float32, Purpose, generator_for
from service.spec import printable

MAX_RESTARTS = 3

WENT_BACK = "back to the last checkpoint, with half the learning rate"

MUCH_WORSE = 4
"""The factor over the bits of the best network from which a run has relapsed."""

NORM_WEIGHT = 0.02
"""The weight of the last gradient in the running mean of norms."""

CHECKPOINT_NAME = "checkpoint.pt"
LOCK_NAME = "training.lock"

PROLONGING = {"updates", "stop_metric", "stop_patience"}
AFTERWARDS = {"choice", "evaluation", "default_locations"}
"""
The settings that a run may go on with although they differ from those it was begun with: how long
it goes on, and what is done with its network then.
"""

TRIALS = ("validation", "choice", "evaluation")
"""The fields of a configuration with trials."""


class CheckpointInvalid(ValueError):
    """A checkpoint cannot be read, or is not of the training that it was read for."""


class InTraining(ValueError):
    """Another process makes the same training."""


class _Unknown(LookupError):
    """A checkpoint is of a task or an architecture that has not been loaded."""


class _OtherParameters(ValueError):
    """A checkpoint is of a network with other parameters, whose names the message has."""


class NotFinite(ArithmeticError):
    """The loss is not finite, or no gradient is. No parameter was changed by it."""


class Quality(NamedTuple):
    """The quality of a network in validation. Greater is better."""

    passed: int
    """The number of trials passed, in rising order of difficulty."""
    negative_bits: float
    """Minus the bits per sequence of the first trial that failed, or of the last trial."""


class Point(NamedTuple):
    """One point of the training curve."""

    sequences: int
    """The number of sequences trained on so far."""
    bits_per_sequence: float
    """The mean cross-entropy since the previous point."""
    wrong_bits: float
    """The mean per sequence since the previous point."""
    trials_passed: int
    """The number of validation trials passed."""
    validation_bits: float
    """Bits per sequence of the first trial that failed, or of the last trial."""
    seconds: float
    """The duration of the run so far."""


@dataclass
class Run:
    """The state of a training run. A checkpoint has all of it but the last two fields."""

    configuration: Configuration
    seed: int
    network: Network
    optimiser: torch.optim.Optimizer
    update: int = 0
    restarts: int = 0
    """The number of restarts after values that were not finite."""
    skipped: int = 0
    """The number of updates that were skipped since their gradient was not finite."""
    relapses: int = 0
    seconds: float = 0.0
    curve: list[Point] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)
    """The parameters of the best network so far."""
    best_quality: Quality | None = None
    typical_norm: float = 0.0
    """The running mean of the norms of the shortened gradients."""
    progress: float = 0.0
    """The progress through the curriculum, from 0 to 1."""
    best_update: int = 0
    trained_on: list[str] = field(default_factory=list)
    """The titles of the devices that it was trained on so far, in their order."""
    former_sources: list[str] = field(default_factory=list)
    """Where the user's task and architecture lay when the checkpoint was written, if elsewhere."""
    arena: Arena = field(default_factory=Arena)
    """Memory for what the steps of an update compute."""

    @classmethod
    def new(cls, configuration: Configuration, seed: int, device: torch.device = CPU) -> Run:
        """Return a run before its first update, whose network is on a device."""
        network = build(configuration.architecture, configuration.sizes, seed).to(device)
        run = cls(configuration, seed, network, _optimiser(configuration, network))
        run.progress = 0.0 if configuration.curriculum else 1.0
        return run

    @property
    def device(self) -> torch.device:
        """The device that updates are computed on."""
        return device_of(self.network)

    @property
    def sequences(self) -> int:
        """The number of sequences trained on so far."""
        return self.update * self.configuration.batch

    @property
    def finished(self) -> bool:
        """Whether all updates are made, or the training has ended early."""
        return self.update >= self.configuration.updates or self.stopped

    @property
    def stopped(self) -> bool:
        """Whether the watched metric has not become better for too many points of the curve."""
        patience = self.configuration.stop_patience
        if not patience or not self.curve:
            return False
        metric = self.configuration.stop_metric
        values = [METRICS[metric] * getattr(point, metric) for point in self.curve]
        return len(values) - 1 - values.index(max(values)) >= patience

    def learning_rate(self) -> float:
        """Return the learning rate of the next update."""
        configuration = self.configuration
        remaining = 1 - self.update / configuration.updates
        decayed = min(1.0, remaining / configuration.decay) if configuration.decay else 1.0
        return configuration.learning_rate * decayed * 0.5 ** (self.restarts + self.relapses)

    def best_network(self) -> Network:
        """
        Return a network with the best parameters so far.

        Raises:
            ValueError: no network has been validated yet.
        """
        if self.best_quality is None:
            first = min(self.configuration.report_every, self.configuration.updates)
            raise ValueError(
                f"{self.configuration.name}, seed {self.seed}, has no network to choose yet: its "
                f"first validation is after update {first}; train it on"
            )
        network = build(self.configuration.architecture, self.configuration.sizes, self.seed)
        network.load_state_dict(self.best)
        return network

    def save(self, folder: Path) -> None:
        """Write the checkpoint atomically. Raises OSError if the folder cannot be written."""
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / (CHECKPOINT_NAME + ".part")
        content = io.BytesIO()  # PyTorch's own writing raises another error on a full disk
        torch.save(
            {
                "configuration": _plain(self.configuration),
                "task_source": TASKS[self.configuration.task].source,
                "architecture_source": ARCHITECTURES[self.configuration.architecture].source,
                "seed": self.seed,
                "network": self.network.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "update": self.update,
                "restarts": self.restarts,
                "relapses": self.relapses,
                "skipped": self.skipped,
                "seconds": self.seconds,
                "curve": [tuple(point) for point in self.curve],
                "best": self.best,
                "best_quality": self.best_quality and tuple(self.best_quality),
                "best_update": self.best_update,
                "typical_norm": self.typical_norm,
                "progress": self.progress,
                "trained_on": self.trained_on,
            },
            content,
        )
        part.write_bytes(content.getbuffer())
        os.replace(part, folder / CHECKPOINT_NAME)

    @classmethod
    def load(cls, folder: Path, device: torch.device = CPU) -> Run:
        """
        Read the checkpoint in a folder, to go on with on a device.

        Raises:
            CheckpointInvalid: the file is not a checkpoint of this trainer, or is damaged.
            OSError: there is none, or it must not be read.
        """
        path = folder / CHECKPOINT_NAME
        try:
            content = io.BytesIO(path.read_bytes())
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"{folder} has no {CHECKPOINT_NAME} yet; train it, or remove the folder"
            ) from error
        try:
            saved = torch.load(content, map_location="cpu", weights_only=True)
            task, architecture = (saved["configuration"][x] for x in ("task", "architecture"))
            if task not in TASKS:
                raise _Unknown(task_unknown(task, saved.get("task_source")))
            if architecture not in ARCHITECTURES:
                named = saved.get("architecture_source")
                raise _Unknown(architecture_unknown(architecture, named))
            return cls._loaded(saved, device)
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except _Unknown as error:
            raise CheckpointInvalid(f"{folder} holds a training of the {error}") from None
        except _OtherParameters as error:
            raise CheckpointInvalid(
                f"the training in {folder} is of a {architecture} with other parameters ({error}); "
                "give the one that it began with, or another folder"
            ) from None
        except Exception as error:  # zip, pickle and torch each raise their own, of any kind
            # What they say is no help, and PyTorch's advice is to run what the file says.
            raise CheckpointInvalid(
                f"{path} is damaged, or no checkpoint of this release of ntm-export; remove its "
                "folder to train anew"
            ) from error

    @classmethod
    def _loaded(cls, saved: dict[str, Any], device: torch.device) -> Run:
        run = cls.new(_configuration(saved["configuration"]), saved["seed"], device)
        shapes, there = (
            {name: tuple(tensor.shape) for name, tensor in state.items()}
            for state in (run.network.state_dict(), saved["network"])
        )
        differ = sorted(dict(shapes.items() ^ there.items()))
        if differ and ARCHITECTURES[run.configuration.architecture].source:
            raise _OtherParameters(", ".join(differ[:5]))
        run.network.load_state_dict(saved["network"])
        run.optimiser.load_state_dict(saved["optimiser"])
        # An older checkpoint lacks these, and was trained on the CPU.
        run.skipped = saved.get("skipped", 0)
        run.trained_on = saved.get("trained_on", [title_of(CPU)])
        sources = (
            (saved.get("task_source"), TASKS[run.configuration.task].source),
            (
                saved.get("architecture_source"),
                ARCHITECTURES[run.configuration.architecture].source,
            ),
        )
        run.former_sources = [there for there, here in sources if there and there != here]
        for name in (
            *("update", "restarts", "relapses", "seconds", "best", "best_update"),
            *("typical_norm", "progress"),
        ):
            setattr(run, name, saved[name])
        run.curve = [Point(*point) for point in saved["curve"]]
        run.best_quality = saved["best_quality"] and Quality(*saved["best_quality"])
        return run

    @classmethod
    def load_to_go_on(
        cls, folder: Path, configuration: Configuration, seed: int, device: torch.device = CPU
    ) -> Run:
        """
        Read the checkpoint in a folder, to make the updates of a configuration on a device.

        If the configuration has more updates than the checkpoint, the training is prolonged; the
        learning rate then falls over the last of all updates. When it ends early may differ too,
        and so may the default number of locations and the trials of choice and evaluation, which
        no update depends on.

        Raises:
            CheckpointInvalid: anything else differs, or the checkpoint is damaged.
            OSError: it must not be read or written.
        """
        run = cls.load(folder, device)
        differ = differences(configuration, run.configuration)
        if run.seed != seed:
            differ["seed"] = f"seed is {run.seed} there, and {seed} here"
        fewer = configuration.updates < run.configuration.updates
        if differ and set(differ) <= PROLONGING | AFTERWARDS and not fewer:
            run.configuration = configuration
            run.save(folder)
        elif differ:
            raise CheckpointInvalid(
                f"{folder} holds a run with other settings: {'; '.join(differ.values())}; give "
                "these too (updates may also be more), or another folder with --runs, or remove it"
            )
        return run


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """
    Make the folder of a run, and keep other processes out of the block with the same folder.

    The lock (flock) is of a file in the folder, and ends with the process that has it. A file
    system that has no locks keeps nobody out.

    Raises:
        InTraining: another process is in such a block.
        OSError: the folder or its file cannot be made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK_NAME).open("wb") as file:  # NFS locks only files that are open for writing
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InTraining(
                f"another process is training in {folder}; wait for it or stop it, or give "
                "another folder with --runs"
            ) from None
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP):
                raise
        yield


def train(run: Run, folder: Path, report: Callable[[Run], None] = lambda run: None) -> Run:
    """
    Make the remaining updates, with a checkpoint in `folder` at every point of the curve.

    Return the run. It is another object if the run went back to a checkpoint.

    Raises:
        NotFinite: the run went back to a checkpoint `MAX_RESTARTS` times, and had to again.
    """
    if run.update == 0:
        run.save(folder)
    while not run.finished:
        try:
            train_to_next_point(run)
        except NotFinite as error:
            if run.restarts == MAX_RESTARTS:
                message = f"seed {run.seed} fails after {run.restarts} restarts"
                raise NotFinite(message) from error
            print(f"{error}; {WENT_BACK}", flush=True)
            run = _last_checkpoint(folder, run.device, run.restarts + 1, run.relapses)
            continue
        if has_relapsed(run) and run.relapses < MAX_RESTARTS:
            bits = run.curve[-1].validation_bits
            print(
                f"the task is lost in update {run.update}: {bits:.1f} bits; {WENT_BACK}", flush=True
            )
            run = _last_checkpoint(folder, run.device, run.restarts, run.relapses + 1)
            continue
        run.save(folder)
        report(run)
    return run


def has_relapsed(run: Run) -> bool:
    """Return whether the network of the last point is much worse than an earlier one."""
    point, best = run.curve[-1], run.best_quality
    limit = run.configuration.relapse_bits
    if not limit or point.trials_passed or best is None:
        return False
    # The bits of the first trial, as those of the point are; 0 if the trial passed.
    best_bits = 0.0 if best.passed else -best.negative_bits
    return point.validation_bits > max(limit, MUCH_WORSE * best_bits)


def _last_checkpoint(folder: Path, device: torch.device, restarts: int, relapses: int) -> Run:
    """Load the last checkpoint with new counts, which set the learning rate, and save it."""
    run = Run.load(folder, device)
    run.restarts, run.relapses = restarts, relapses
    run.save(folder)
    return run


@contextmanager
def denormals_as_zeros() -> Iterator[None]:
    """
    Flush denormal numbers to zero in this thread.

    Sharp weightings have many denormal numbers, and processors are slow with them: an update of a
    trained sorter took 93 ms with them and 25 ms without.
    """
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


@denormals_as_zeros()
def train_to_next_point(run: Run) -> None:
    """
    Make `report_every` updates, validate, and add a point to the curve.

    Raises:
        NotFinite: a loss was not finite, or none of the gradients was.
    """
    started = time.monotonic()
    bits = wrong = 0.0
    first, skipped = run.update, run.skipped
    title = title_of(run.device)
    if title not in run.trained_on:
        run.trained_on.append(title)
    last = min(first + run.configuration.report_every, run.configuration.updates)
    while run.update < last:
        update_bits, update_wrong = update(run)
        bits += update_bits / (last - first)
        wrong += update_wrong / (last - first)
    if run.skipped - skipped == last - first:
        raise NotFinite(
            f"no gradient was finite in updates {first} to {last - 1} of seed {run.seed}"
        )
    quality = validate(run.network, run.configuration, run.seed)
    if run.best_quality is None or quality > run.best_quality:
        run.best = {name: value.clone() for name, value in run.network.state_dict().items()}
        run.best_quality, run.best_update = quality, run.update
    run.seconds += time.monotonic() - started
    run.curve.append(
        Point(run.sequences, bits, wrong, quality.passed, -quality.negative_bits, run.seconds)
    )


def update(run: Run) -> tuple[float, float]:
    """
    Make one update of the parameters; return bits and wrong bits per sequence.

    If the gradient is not finite, the parameters stay as they are. A head that stands in an
    unstable balance between two places multiplies the gradient at every step that it stays there:
    over a hundred steps by 1e27, with parameters that are as good as ever.

    Raises:
        NotFinite: the loss is not finite.
    """
    configuration = run.configuration
    generator = generator_for(Purpose.TRAINING, run.seed, run.update)
    task = TASKS[configuration.task]
    batch = task.draw(generator, configuration.batch, configuration.blank_rate, run.progress)
    locations = int(generator.choice(configuration.locations))
    state = begin(run.network, configuration.batch, locations)
    unroll = ARCHITECTURES[configuration.architecture].logits
    inputs = torch.from_numpy(batch.inputs).to(run.device)
    logits = unroll(run.network, inputs, state, run.arena)
    targets = batch.targets
    if configuration.expected_targets and batch.optimum is not None:
        targets = batch.optimum
    loss = mean_cross_entropy(logits, targets, batch.mask)
    run.optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
    # Before clipping, after which an infinite component looks like a large one.
    norm = torch.nn.utils.get_total_norm(
        each.grad for each in run.network.parameters() if each.grad is not None
    )
    if not loss.isfinite():
        raise NotFinite(f"loss {loss.item()} in update {run.update} of seed {run.seed}")
    if norm.isfinite():
        _step(run)
    else:
        run.skipped += 1
    run.update += 1
    if run.progress < 1 and loss.item() <= configuration.curriculum_cost * math.log(2):
        run.progress = min(1.0, run.progress + 1 / configuration.curriculum)
    answers = torch.sigmoid(logits.detach()).cpu().numpy()
    scores = score(answers, batch.targets, batch.mask)
    return float(scores.bits.mean()), float(scores.wrong.mean())


def _step(run: Run) -> None:
    """Change the parameters by their gradients."""
    if run.configuration.clip_value:
        torch.nn.utils.clip_grad_value_(run.network.parameters(), run.configuration.clip_value)
    shorten(run)
    for group in run.optimiser.param_groups:
        group["lr"] = run.learning_rate()
    run.optimiser.step()


def shorten(run: Run) -> None:
    """Shorten the gradient in place to its limit, and update `run.typical_norm`."""
    configuration = run.configuration
    limit = configuration.clip_norm or math.inf
    if configuration.clip_ratio and run.typical_norm:
        limit = configuration.clip_ratio * run.typical_norm
    norm = torch.nn.utils.clip_grad_norm_(run.network.parameters(), limit)
    passed = min(float(norm), limit)
    weight = NORM_WEIGHT if run.typical_norm else 1.0
    run.typical_norm += weight * (passed - run.typical_norm)


def mean_cross_entropy(logits: Tensor, targets: Float32, mask: Float32) -> Tensor:
    """
    Return the mean cost of a target bit in nats, over the steps of the mask.

    `logits` and `targets` [T, B, Y], `mask` [T, B]. If targets are probabilities, the cost is the
    expected one.
    """
    counts = torch.from_numpy(mask).to(logits.device)[:, :, None].expand_as(logits)
    wanted = torch.from_numpy(targets).to(logits.device)
    return binary_cross_entropy_with_logits(logits, wanted, counts, reduction="sum") / counts.sum()


def validate(network: Network, configuration: Configuration, seed: int) -> Quality:
    """Run the trials of validation in PyTorch."""
    answers = answers_of(TorchRunner(network))
    return quality_of(answers, configuration, configuration.validation, seed)


def quality_of(
    answers: Answers, configuration: Configuration, trials: Sequence[Trial], seed: int
) -> Quality:
    """Run trials on sequences of validation, up to the first that does not pass."""
    task, limit = TASKS[configuration.task], configuration.pass_bits
    passed, bits = 0, 0.0
    for trial in trials:
        result = evaluate(answers, task, trial, Purpose.VALIDATION, seed)
        bits = result.bits_per_sequence
        if bits > limit if limit else result.wrong_bits:
            break
        passed += 1
    return Quality(passed, -bits)


def task_unknown(task: str, source: str | None) -> str:
    """
    Return what to say of a task that is not known.

    A file may name the source that the task had in training. It is only shown: importing it, which
    runs its code, is for the user to ask for.
    """
    named = printable(source) if source else "MODULE:NAME, such as my_tasks:PARITY, or a file .npz"
    return f"task {task!r}, which is not one of {', '.join(TASKS)}; name it with --task {named}"


def architecture_unknown(architecture: str, source: str | None) -> str:
    """Return what to say of an architecture that is not known, as `task_unknown` does of a task."""
    named = printable(source) if source else "MODULE:NAME, such as my_nets:MY_NET"
    return (
        f"architecture {architecture!r}, which is not one of {', '.join(ARCHITECTURES)}; name it "
        f"with --architecture {named}"
    )


def _optimiser(configuration: Configuration, network: Network) -> torch.optim.Optimizer:
    """Return the configured optimiser."""
    rate = configuration.learning_rate
    if configuration.optimiser == "rmsprop":
        return RmsProp(network.parameters(), rate)
    return torch.optim.Adam(network.parameters(), lr=rate, eps=configuration.adam_epsilon)


def folder_of(runs: Path, name: str, seed: int, *, paper: bool = False) -> Path:
    """Return the folder of the checkpoint of a training."""
    return runs / (f"{name}-paper" if paper else name) / f"seed-{seed}"


def _plain(configuration: Configuration) -> dict[str, Any]:
    """Return the configuration in the form of a checkpoint."""
    values = asdict(configuration)
    return {**values, **{name: [tuple(trial) for trial in values[name]] for name in TRIALS}}


def _configuration(values: dict[str, Any]) -> Configuration:
    """Return the configuration of a checkpoint."""
    # An older checkpoint lacks the settings that came later.
    trials = {name: tuple(Trial(*trial) for trial in values.get(name, ())) for name in TRIALS}
    return Configuration(**{**values, **trials, "locations": tuple(values["locations"])})
