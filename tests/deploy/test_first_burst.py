"""The first events of a fresh server are counted by a real Prometheus, each of them."""

from __future__ import annotations

import asyncio
import math
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from typing import Any, NamedTuple

import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families

from deploy.generate import stack
from ntm.v1 import ntm_pb2, ntm_pb2_grpc
from ntm_client import AsyncClient, Client, Durability, NtmClientError
from service.telemetry.metrics import DECLARATIONS
from tests.deploy.tools import PROMETHEUS
from tests.support.tiny_models import RUN_FAILS, doubling, ledger

pytestmark = [*PROMETHEUS, pytest.mark.slow]

BY_ITSELF = "ntm_event_loop_lag_seconds"
"""What counts without any event."""

ABSENT = {"ntm_store_errors_total": "the store answers"}
"""What the burst does not count, and the reason."""

COUNTED = [
    each.name
    for each in DECLARATIONS
    if each.type != "gauge" and each.name not in (BY_ITSELF, *ABSENT)
]

Series = dict[frozenset[tuple[str, str]], float]


class Burst(NamedTuple):
    """What a fresh server counted, and what Prometheus saw of it."""

    counted: Series
    """The value of each series of a counter or histogram, at the server."""
    seen: dict[frozenset[tuple[str, str]], list[float]]
    """The values of each series that Prometheus has scraped, in order."""
    prometheus: stack.Prometheus


@pytest.fixture(scope="module")
def burst(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Burst]:
    """Scrape a fresh server, have everything happen to it once, and scrape it again."""
    folder = tmp_path_factory.mktemp("burst")
    model = folder / "models" / "ledger" / "model.onnx"
    model.parent.mkdir(parents=True)
    model.write_bytes(ledger())
    flags = (
        *(f"--models-dir={model.parents[1]}", f"--store=directory:{folder / 'store'}"),
        *("--device=cpu", "--store-sync=no", "--max-awake-sessions=2"),
    )
    with (
        stack.server(folder / "server.log", *flags) as server,
        stack.prometheus(folder, [server.monitoring]) as prometheus,
    ):
        happen(server.address)
        asyncio.run(happen_on_a_stream(server.address))
        model.write_bytes(doubling())
        wanted = {*COUNTED}
        stack.wait_until(
            lambda: wanted <= {name(each) for each, value in counts(server).items() if value},
            30,
            "everything was counted that is to happen",
        )
        stack.wait_until(
            lambda: (
                {each: values[-1] for each, values in seen(prometheus).items()} == counts(server)
            ),
            30,
            "Prometheus has scraped what the server has counted",
        )
        yield Burst(counts(server), seen(prometheus), prometheus)


def happen(address: str) -> None:
    """Unary calls that end well and badly; sessions that sleep, wake, expire and fail."""
    with Client(address, resume=None) as client:
        first = client.create_session("ledger", durability=Durability("synchronous"))
        first.step([[1.0, 0.0]], traces=["write_weighting"])
        short = client.create_session("ledger", idle_timeout=timedelta(seconds=1))
        short.step([[1.0, 0.0]])
        for _ in range(3):  # there is room for two, so the first goes to sleep
            client.create_session("ledger").step([[1.0, 0.0]])
        first.step([[1.0, 0.0]])
        with suppress(NtmClientError):
            client.create_session("ledger").step([[RUN_FAILS, 0.0]])
        client.create_session("ledger").delete()
    with grpc.insecure_channel(address) as channel:
        stub: Any = ntm_pb2_grpc.NtmServiceStub(channel)
        response = stub.CreateSession(ntm_pb2.CreateSessionRequest(model="ledger"))
        chunk = ntm_pb2.Chunk(session_id=response.session.id, first_step=0, inputs=bytes(8))
        for _ in range(2):  # the second is answered by the first's reply
            stub.Step(ntm_pb2.StepRequest(chunk=chunk))
        with suppress(grpc.RpcError):
            stub.CreateSession(ntm_pb2.CreateSessionRequest(model="nothing"))


async def happen_on_a_stream(address: str) -> None:
    """A stream on which a session is opened, stepped and closed."""
    async with (
        AsyncClient(address, resume=None) as client,
        client.stream() as stream,
        await stream.open("ledger") as session,
    ):
        await session.step([[1.0, 0.0]])


def counts(server: stack.ServerAddresses) -> Series:
    """The series of counters and histograms as they are now at the server."""
    with urllib.request.urlopen(f"http://{server.monitoring}/metrics", timeout=10) as page:
        families = list(text_string_to_metric_families(page.read().decode()))
    return {
        frozenset({"__name__": sample.name, **sample.labels}.items()): sample.value
        for family in families
        if family.name.startswith("ntm_") and family.name != BY_ITSELF and family.type != "gauge"
        for sample in family.samples
    }


def seen(prometheus: stack.Prometheus) -> dict[frozenset[tuple[str, str]], list[float]]:
    """The same series as Prometheus has them, without the labels that it adds."""
    found = {}
    for each in prometheus.query('{__name__=~"ntm_.*(_total|_bucket|_count|_sum)"}[1h]'):
        labels = {key: text for key, text in each["metric"].items() if key not in ADDED}
        if not labels["__name__"].startswith(BY_ITSELF):
            values: Any = each["values"]
            found[frozenset(labels.items())] = [float(value) for _, value in values]
    return found


ADDED = ("instance", "job")


def name(series: frozenset[tuple[str, str]]) -> str:
    """The metric of a series, as it is declared."""
    text = dict(series)["__name__"]
    return text.removesuffix("_bucket").removesuffix("_count").removesuffix("_sum")


def test_no_event_of_the_first_burst_is_lost(burst: Burst) -> None:
    """Each series that has counted something was 0 when Prometheus scraped the server at first."""
    late = {
        series: burst.seen[series]
        for series, value in burst.counted.items()
        if value and burst.seen[series][0] != 0
    }

    assert late == {}
    assert {name(series) for series, value in burst.counted.items() if value} >= {*COUNTED}


@pytest.mark.parametrize("metric", COUNTED)
def test_what_a_dashboard_asks_for_shows_the_first_burst(burst: Burst, metric: str) -> None:
    """An increase over the burst is greater than 0 for every series that has counted something."""
    suffix = "" if metric.endswith("_total") else "_count"
    shown = burst.prometheus.query(f"increase({metric}{suffix}[1h]) > 0")
    counted = [
        series
        for series, value in burst.counted.items()
        if value and dict(series)["__name__"] == metric + suffix
    ]

    assert len(shown) == len(counted) > 0
    assert all(math.isfinite(float(each["value"][1])) for each in shown)
