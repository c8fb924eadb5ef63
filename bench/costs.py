"""Measure the unit costs of a replica, a Valkey and an Envoy."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import redis

from bench import processes
from bench.durability import valkey
from bench.envoy import envoy
from bench.processes import LoadGenerator, Served
from bench.row import Options
from bench.serving import stepped_together, streams
from service.stores.base import Saved
from service.stores.redis_store import RedisStore

LOCATIONS = (128, 1024)
CHUNKS = (1, 8, 32)
REPLAYED_STEPS = 2048
"""The outputs of this many steps fill the replies that a session keeps, 64 KB."""
RANDOM_STEPS, RANDOM_STEPS_A_SECOND, EXPONENT = 2000, 78.0, 0.8
"""
Of idle sessions: the number of steps, their rate, and the exponent. The k-th session steps as often
as 1 / k^exponent.
"""
LOST = 500
"""Sessions that another replica takes over at once."""

Costs = dict[str, float]


def measured(options: Options, envoy_program: Path | None) -> Costs:
    """Return every cost by name; those of Envoy only if there is a program."""
    costs: Costs = {}
    for part in (stepping, resident, saving, waking, keeping):
        costs |= part(options)
        print(f"{part.__name__}: measured", flush=True)
    if envoy_program is not None:
        costs |= balancing(options, envoy_program)
    return costs


def stepping(options: Options) -> Costs:
    """Measure a replica's processor time for a step and its throughput, by kind of load."""
    with processes.server(options) as served, processes.load() as load:
        lone = load("round_trips", address=served.address, count=1000)
        costs = {f"lone step {name}": value for name, value in lone.items()}
        ways = {f"chunks of {chunk}": stepped_together(served, load, chunk) for chunk in CHUNKS}
        ways["64 streams"] = streams(served, load)
        ways["chunks of 32, N = 1024"] = stepped_together(served, load, 32, locations=1024)
        for way, measure in ways.items():
            rounds = [measure() for _ in range(options.rounds)]
            costs[f"step us, {way}"] = _median(rounds, "server CPU, us a step")
            costs[f"steps/s, {way}"] = _median(rounds, "steps/s")
    return costs


def resident(options: Options) -> Costs:
    """Measure a replica's memory: at rest, for each session and for each open stream."""
    costs: Costs = {}
    for locations, count in zip(LOCATIONS, (1000, 200), strict=True):
        with processes.server(options) as served, processes.load() as load:
            costs["resident bytes, at rest"] = served.resident_bytes()
            costs[f"resident bytes, awake, N = {locations}"] = _slope(
                served, partial(load, "open_idle", sessions=count, locations=locations), count
            )
    with processes.server(options) as served, processes.load() as load:
        both = _slope(served, partial(load, "open_streams", count=200), 200)
        costs["resident bytes, stream"] = both - costs[f"resident bytes, awake, N = {LOCATIONS[0]}"]
    with with_store(options, "--durability=none", "--max-awake-sessions=256") as (served, load, _):
        load("open_idle", address=served.address, sessions=512)
        costs["resident bytes, asleep"] = _slope(
            served, partial(load, "open_idle", sessions=500), 500
        )
    return costs


def saving(options: Options) -> Costs:
    """Measure a replica's processor time for a save in each store, and the bytes of a record."""
    costs: Costs = {}
    with processes.server(options) as plain, processes.load() as load:
        step = stepped_together(plain, load)
        alone = _median([step() for _ in range(options.rounds)], "server CPU, us a step")
    with TemporaryDirectory(prefix="ntm-bench-") as folder, valkey(folder) as url:
        stores = {"Valkey": (url,), "a directory": (f"directory:{folder}/s", "--store-sync=no")}
        for store, (setting, *flags) in stores.items():
            with (
                processes.server(options, f"--store={setting}", *flags) as served,
                processes.load() as load,
            ):
                step = stepped_together(served, load, policy="POLICY_SYNCHRONOUS")
                rounds = [step() for _ in range(options.rounds)]
                costs[f"save us, {store}"] = _median(rounds, "server CPU, us a step") - alone
                costs[f"saves/s, {store}"] = _median(rounds, "steps/s")
                if store == "Valkey":
                    costs |= _record_bytes(served, load)
    return costs


def waking(options: Options) -> Costs:
    """Measure a replica's processor time for wakes and takeovers, and the clients' times."""
    costs: Costs = {}
    flags = ("--durability=synchronous", "--max-awake-sessions=512")
    with with_store(options, *flags) as (served, load, url):
        stored = load("round_trips", address=served.address, count=1000)
        costs |= {f"stored step {name}": value for name, value in stored.items()}
        load("open_idle", address=served.address, sessions=4096)
        costs |= _woken(served, load, "wake", 1000)
        costs |= _stepped_at_random(served, load)
        with processes.server(options, f"--store={url}", "--durability=synchronous") as heir:
            load("wakings", address=heir.address, count=64)  # its network is loaded
            costs |= _woken(heir, load, "takeover", 1000)
            lost = load("all_at_once", address=heir.address, count=LOST)
            costs[f"{LOST} takeovers at once, half done, s"] = lost["p50, us"] / 1e6
            costs[f"{LOST} takeovers at once, all done, s"] = lost["last, us"] / 1e6
    return costs


def keeping(options: Options) -> Costs:
    """Measure a Valkey's processor time, memory and network bytes for a record, by size."""
    costs: Costs = {}
    for size in (12_288, 98_304):
        for file in ("yes", "no"):
            with (
                TemporaryDirectory(prefix="ntm-bench-") as folder,
                valkey(folder) as url,
                redis.Redis.from_url(url) as client,
            ):
                client.config_set("appendonly", file)
                found = asyncio.run(_filled(client, url, size, options.rounds))
            with_file = {"yes": "", "no": ", no file"}[file]
            costs |= {f"{name}, {size >> 10} KB{with_file}": cost for name, cost in found.items()}
    return costs


def balancing(options: Options, program: Path) -> Costs:
    """Measure an Envoy's processor time for a step, and its memory for a stream."""
    costs: Costs = {}
    with (
        processes.server(options) as served,
        envoy(program, [served]) as before,
        processes.load() as load,
    ):
        ways = {"64 streams": streams(before, load), "chunks of 1": stepped_together(before, load)}
        for way, measure in ways.items():
            rounds = [measure() for _ in range(options.rounds)]
            costs[f"Envoy us a step, {way}"] = _median(rounds, "server CPU, us a step")
            costs[f"steps/s through Envoy, {way}"] = _median(rounds, "steps/s")
        costs["Envoy bytes, at rest"] = before.resident_bytes()
        costs["Envoy bytes, stream"] = _slope(before, partial(load, "open_streams", count=200), 200)
    return costs


@contextmanager
def with_store(options: Options, *flags: str) -> Iterator[tuple[Served, LoadGenerator, str]]:
    """Start a server with a Valkey and a load generator; enter with both and the Valkey's URL."""
    with TemporaryDirectory(prefix="ntm-bench-") as folder, valkey(folder) as url:
        # A disk under other load can stop a Valkey for seconds.
        flags = (f"--store={url}", "--store-timeout-seconds=30", "--max-sessions=100000", *flags)
        with processes.server(options, *flags) as served, processes.load() as load:
            yield served, load, url


def _median(rounds: Sequence[Mapping[str, float]], name: str) -> float:
    return median(each[name] for each in rounds)


def _slope(served: Served, more: Callable[..., Any], count: int) -> float:
    """Return the resident bytes for each of `count` things that `more` opens: a fitted slope."""
    resident = []
    for _ in range(5):
        more(address=served.address)
        resident.append(served.resident_bytes())
    return float(np.polyfit(count * np.arange(5), resident, 1)[0])


def _record_bytes(served: Served, load: LoadGenerator) -> Costs:
    """Return the bytes of a record: after one chunk, and with as many outputs as are kept."""

    def stored(locations: int, steps: int) -> float:
        before = counted(served, "ntm_stored_bytes_total")
        load("indexed", address=served.address, locations=locations, steps=steps, chunk=32)
        return counted(served, "ntm_stored_bytes_total") - before

    costs = {}
    for locations in LOCATIONS:
        for name, steps in (("fresh", 0), ("full", REPLAYED_STEPS)):
            last = stored(locations, steps + 32) - stored(locations, steps)
            costs[f"record bytes, N = {locations}, {name}"] = last
    return costs


def counted(served: Served, metric: str) -> float:
    """Return the sum of a metric of a server over all labels."""
    values = re.findall(rf"^{metric}(?:{{.*}})? (\S+)$", served.metrics(), re.MULTILINE)
    return sum(map(float, values))


def _woken(served: Served, load: LoadGenerator, kind: str, count: int) -> Costs:
    before = served.cpu_seconds()
    one = load("wakings", address=served.address, count=count // 2)
    many = load("wakings", address=served.address, count=count // 2, at_once=32)
    return {
        f"{kind} us": 1e6 * (served.cpu_seconds() - before) / count,
        f"{kind}s/s, 32 at once": many["wakes/s"],
        **{f"{kind} {name}": one[name] for name in one if name.endswith("us")},
    }


def _stepped_at_random(served: Served, load: LoadGenerator) -> Costs:
    before = counted(served, "ntm_wakes_total")
    taken = load(
        "steps_at_random",
        address=served.address,
        rate=RANDOM_STEPS_A_SECOND,
        count=RANDOM_STEPS,
        exponent=EXPONENT,
    )
    woken = counted(served, "ntm_wakes_total") - before
    return {
        "random steps, share that wakes": woken / RANDOM_STEPS,
        **{f"random step {name}": taken[name] for name in ("p50, us", "p99, us")},
    }


async def _filled(client: redis.Redis, url: str, size: int, seconds: float) -> Mapping[str, float]:
    """Save and claim records of a size, as replicas do; return the costs for Valkey."""
    pid = int(client.info("server")["process_id"])
    server = Served(url, pid)
    store = RedisStore(url, timeout_seconds=60)
    record = np.random.default_rng(0).bytes(size)
    sessions = [f"{number}" for number in range(2048)]
    batches = [sessions[start : start + 64] for start in range(0, len(sessions), 64)]
    taken: dict[str, float] = {}

    async def save(worker: int) -> int:
        await store.save([Saved(each, 1 << 50, record, 3600) for each in batches[worker]])
        return 64

    async def claim(worker: int) -> int:
        await asyncio.gather(*(store.claim(each) for each in batches[worker]))
        return 64

    empty = client.info("memory")["used_memory"]
    await asyncio.gather(*map(save, range(len(batches))))
    taken["memory bytes a record"] = (client.info("memory")["used_memory"] - empty) / len(sessions)
    for name, work in (("save", save), ("claim", claim)):
        before, cpu, begun = client.info(), server.cpu_seconds(), time.perf_counter()

        async def again(worker: int, work: Any = work, begun: float = begun) -> int:
            done = 0
            while time.perf_counter() - begun < seconds:
                done += await work(worker + 8 * (done % 4))
            return done

        done = sum(await asyncio.gather(*map(again, range(8))))
        after, wall = client.info(), time.perf_counter() - begun
        taken[f"Valkey us a {name}"] = 1e6 * (server.cpu_seconds() - cpu) / done
        taken[f"Valkey {name}s/s"] = done / wall
        moved = {"save": "total_net_input_bytes", "claim": "total_net_output_bytes"}[name]
        taken[f"network bytes a {name}"] = (after[moved] - before[moved]) / done
    await store.close()
    return taken
