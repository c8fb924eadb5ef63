"""One run: replicas, a store and clients; faults until time is up; then the audit."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ntm_client.errors import NtmClientError
from tests.stress.chaos.balancer import Balancer
from tests.stress.chaos.careless import careless
from tests.stress.chaos.expected import AFTERWARDS, MODELS, Reference
from tests.stress.chaos.faults import Faults
from tests.stress.chaos.folder import Folder
from tests.stress.chaos.mortal import killed
from tests.stress.chaos.replica import Counts, Replica
from tests.stress.chaos.tally import Tally
from tests.stress.chaos.walks import expiring, handed_over, streamed, threaded, unary, undurable
from tests.stress.chaos.world import Kept, World
from tests.support.served import MODELS as SHIPPED
from tests.support.tiny_models import ledger
from tests.support.valkey import Valkey

WALKS = {
    "unary": (unary, 3),
    "threaded": (threaded, 3),
    "streamed": (streamed, 2),
    "handed over": (handed_over, 2),
    "killed": (killed, 1),
    "expiring": (expiring, 2),
    "undurable": (undurable, 2),
    "careless": (careless, 1),
}
"""Kinds of walks, and how many of each there are."""

AWAKE = 4
"""Sessions that a replica keeps awake: far fewer than there are."""

_STOP_SECONDS = 200.0


def models_in(folder: Path) -> Path:
    """A models folder with what the sessions run on."""
    for name in MODELS:
        (folder / name).mkdir(parents=True)
        shipped = SHIPPED / name / "model.onnx"
        content = shipped.read_bytes() if shipped.exists() else ledger()
        (folder / name / "model.onnx").write_bytes(content)
    return folder


async def trial(
    folder: Path, seed: int, seconds: float, replicas: int = 3, kind: str = "valkey"
) -> Tally:
    """Make a run with so many replicas, on a store of that kind: valkey or directory."""
    models_dir = models_in(folder / "models")
    store: Valkey | Folder = (
        Valkey(folder, "--appendfsync", "always") if kind == "valkey" else Folder(folder / "store")
    )
    try:
        flags = [
            f"--models-dir={models_dir}",
            f"--models={','.join(MODELS)}",
            f"--store={store.url}",
            f"--default-idle-timeout-seconds={seconds + 600}",
            f"--max-awake-sessions={AWAKE}",
            "--drain-seconds=5",
        ]
        fleet = [Replica(f"replica{number}", folder, *flags) for number in range(replicas)]
        auditor = Replica("auditor", folder, *flags, "--max-awake-sessions=0")
        try:
            return await _with(fleet, auditor, store, Reference(models_dir, seed), seed, seconds)
        finally:
            for replica in (*fleet, auditor):
                replica.kill()
    finally:
        store.stop()


async def _with(
    fleet: Sequence[Replica],
    auditor: Replica,
    store: Valkey | Folder,
    reference: Reference,
    seed: int,
    seconds: float,
) -> Tally:
    await asyncio.gather(*(replica.start() for replica in fleet))
    balancer = Balancer(fleet)
    world = World(seed, reference, balancer, time.monotonic() + seconds)
    faults = Faults(world, balancer, fleet, store)
    async with asyncio.timeout(seconds + _STOP_SECONDS):
        await asyncio.gather(
            faults.run(),
            *(
                walks(world, f"{name} {number}")
                for name, (walks, count) in WALKS.items()
                for number in range(count)
            ),
        )
    for way in world.ways:
        way.close()
    await _survivors(world, fleet)
    await _audit(world, auditor)
    return world.tally


async def _survivors(world: World, fleet: Sequence[Replica]) -> None:
    """What the replicas have counted adds up, and each stops cleanly."""
    tally = world.tally
    for replica in fleet:
        counts = await replica.counts()
        wrongs = _inconsistencies(counts, replica.refusals_since_start())
        tally.others += [f"{replica.name}: {wrong}" for wrong in wrongs]
    counted = sum((replica.refusals() for replica in fleet), Counter[str]())
    for reason, seen in tally.refusals.items():
        if seen > counted[reason]:
            tally.others.append(f"clients met {reason} {seen} times, counted: {counted[reason]}")
    for replica in fleet:
        wrong = await replica.stop()
        if not wrong and (left := replica.not_stored_at_stop()):
            wrong = f"{replica.name} could not store {left} sessions when it stopped"
        if wrong:
            tally.others.append(wrong)


def _inconsistencies(counts: Counts, refusals: Counter[str]) -> list[str]:
    """Where metrics are not what was refused, slots not the sessions awake, or work is pending."""
    found = [
        f"{reason} was refused {count} times, ntm_errors_total says {said}"
        for reason, count in refusals.items()
        if (said := counts["ntm_errors_total", reason, ""]) != count
    ]
    for model in MODELS:
        awake = counts["ntm_sessions", model, ""] - counts["ntm_sessions_asleep", model, ""]
        taken = counts["ntm_slots", model, "taken"]
        if awake != taken:
            found.append(f"{awake} sessions of {model} awake, {taken} slots taken")
    pending = ("ntm_waiting_sessions", "ntm_streams")
    found += [f"{name} is {counts[name, '', '']}" for name in pending if counts[name, "", ""]]
    return found


async def _audit(world: World, auditor: Replica) -> None:
    """A new replica has every session that was kept, at its step, and none else."""
    tally = world.tally
    await auditor.start()
    async with world.asynchronous(f"127.0.0.1:{auditor.port}") as client:
        found = []
        for kept in world.kept:
            try:
                session = await client.session(kept.id)
                if error := _misplaced(kept, session.next_step):
                    tally.losses.append(error)
                first = session.next_step
                result = await session.step(kept.expected.inputs[first : first + AFTERWARDS])
                tally.compare(kept.expected, first, result.array, "audit")
                found.append(session)
            except NtmClientError as error:
                tally.losses.append(f"session {kept.expected.number}, audit: {error}")
        await _open(tally, auditor, len(found))
        for session in found:
            await session.delete()
        await _open(tally, auditor, 0)
    if wrong := await auditor.stop():
        tally.others.append(wrong)


def _misplaced(kept: Kept, step: int) -> str:
    """What is wrong with where a session is."""
    least = kept.known_steps if kept.durability.policy == "synchronous" else kept.durable_step
    if least <= step <= kept.known_steps:
        return ""
    return (
        f"session {kept.expected.number} ({kept.durability.policy}) is at step {step}, its client "
        f"was told {kept.known_steps}, durable {kept.durable_step}"
    )


async def _open(tally: Tally, auditor: Replica, sessions: int) -> None:
    """The auditor has so many sessions, and as many slots taken."""
    counts = await auditor.counts()
    for name, use in (("ntm_sessions", ""), ("ntm_slots", "taken")):
        value = sum(counts[name, model, use] for model in MODELS)
        if value != sessions:
            tally.others.append(f"the auditor has {value} as {name} {use}, not {sessions}")
