"""Envoy moves the sessions of a replica that goes and no others, however it goes."""

from __future__ import annotations

import queue
import re
import signal
import socket
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

import grpc
import pytest
import yaml

from deploy.generate.stack import wait_until
from ntm.v1 import ntm_pb2 as pb
from ntm.v1 import ntm_pb2_grpc
from tests.stress.balancers.balancing import (
    ATTEMPTS_HEADER,
    ENVOY,
    REPLICA_HEADER,
    balancing,
    leads_to,
)
from tests.stress.balancers.names import Names, names
from tests.stress.balancers.replicas import MODEL, Replica, port, replicas
from tests.support.ports import free_port

SESSIONS = tuple(f"session-{number}" for number in range(300))
"""Ids to be led somewhere: as many as show that a hundredth of them moves."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(ENVOY.path is None, reason=f"envoy is not installed: {ENVOY.install}"),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Replica]]:
    """Three replicas that share a store; all serve at the start of each test."""
    with replicas(tmp_path_factory.mktemp("replicas")) as started:
        yield started


@pytest.fixture
def channel(site: list[Replica], tmp_path: Path) -> Iterator[grpc.Channel]:
    """A channel to an Envoy before them."""
    with balancing(ENVOY, site, tmp_path) as address, grpc.insecure_channel(address) as channel:
        yield channel


def asked(channel: grpc.Channel, sessions: Sequence[str]) -> list[tuple[str, int]]:
    """Which replica answers a call for each session, and in how many attempts, asked at once."""
    stub: Any = ntm_pb2_grpc.NtmServiceStub(channel)
    calls = [
        stub.ListModels.future(
            pb.ListModelsRequest(), timeout=60, metadata=(("x-session-id", session),)
        )
        for session in sessions
    ]
    found = []
    for call in calls:
        call.result()
        said = dict(call.initial_metadata())
        found.append((said[REPLICA_HEADER], int(said[ATTEMPTS_HEADER])))
    return found


def led(channel: grpc.Channel) -> dict[str, str]:
    """The address of the replica that each session is led to."""
    return {
        session: replica
        for session, (replica, _) in zip(SESSIONS, asked(channel, SESSIONS), strict=True)
    }


def those_of(replica: str, led_to: dict[str, str]) -> list[str]:
    """The sessions that are led to a replica."""
    return [session for session, address in led_to.items() if address == replica]


def assert_only_its_own_moved(
    replica: str, before: dict[str, str], now: dict[str, str], survivors: set[str]
) -> None:
    """All sessions of a replica that is gone are spread over the others, which keep theirs."""
    moved = those_of(replica, before)
    assert {session for session in SESSIONS if before[session] != now[session]} == set(moved)
    assert {now[session] for session in moved} == survivors


def end(replica: Replica, number: signal.Signals) -> Callable[[], None]:
    """End or stop a replica, so that it answers no call from here on; what has it go on."""
    replica.process.send_signal(number)
    if number is signal.SIGTERM:
        # It answers calls that read while it drains, and nobody knows when it sees the signal.
        wait_until(lambda: not listens(replica.address), 30, "the replica has drained")
    if number is signal.SIGSTOP:
        return partial(replica.process.send_signal, signal.SIGCONT)

    def again() -> None:
        replica.process.wait()
        replica.start()
        replica.wait()

    return again


def listens(address: str) -> bool:
    """Whether connections to an address are taken."""
    with socket.socket() as tried:
        return tried.connect_ex((address.rpartition(":")[0], int(port(address)))) == 0


class Silent:
    """A stream of a session, on which nothing is said until it is closed; use it in `with`."""

    def __init__(self, channel: grpc.Channel, session: str) -> None:
        """Open a session on a stream that is led as that one."""
        self._asked: queue.SimpleQueue[pb.StreamStepsRequest | None] = queue.SimpleQueue()
        stub: Any = ntm_pb2_grpc.NtmServiceStub(channel)
        self._call = stub.StreamSteps(
            iter(self._asked.get, None), metadata=(("x-session-id", session),)
        )
        self.session = self._said(open=pb.CreateSessionRequest(model=MODEL)).opened.id

    def close(self) -> pb.Outcome:
        """Delete the session. Returns the stream's last outcome."""
        return self._said(close=self.session)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._asked.put(None)  # ends the thread of gRPC's that waits for the next request
        self._call.cancel()

    def _said(self, **operation: Any) -> pb.Outcome:
        self._asked.put(pb.StreamStepsRequest(operations=[pb.Operation(**operation)]))
        outcome: pb.Outcome
        (outcome,) = next(self._call).outcomes
        return outcome


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP])
def test_only_the_sessions_of_the_replica_that_goes_move(
    site: list[Replica], channel: grpc.Channel, number: signal.Signals
) -> None:
    """Killed, drained or hanging: at once and later, until it is back, and no stream is cut."""
    before = led(channel)
    gone, *others = (replica.address for replica in site)
    survivors = set(others)
    with Silent(channel, those_of(others[0], before)[0]) as silent:
        again = end(site[0], number)
        try:
            assert_only_its_own_moved(gone, before, led(channel), survivors)
            own = those_of(gone, before)
            wait_until(
                lambda: {attempts for _, attempts in asked(channel, own)} == {1}, 30, "Envoy knows"
            )
            assert_only_its_own_moved(gone, before, led(channel), survivors)
        finally:
            again()

        wait_until(lambda: led(channel) == before, 30, "all are led where they were")
        assert silent.close().closed == silent.session


def by_name(
    known: Names, admin: int, text: str, replicas: Sequence[Replica], own_port: int, folder: Path
) -> str:
    """The configuration as it is, with that name server, asked often, and other ports."""
    configuration: dict[str, Any] = yaml.safe_load(
        ENVOY.filled_in(text, replicas, own_port, folder)
    )
    configuration["admin"]["address"]["socket_address"]["port_value"] = admin
    (cluster,) = configuration["static_resources"]["clusters"]
    (given,) = yaml.safe_load(text)["static_resources"]["clusters"]
    for locality in given["load_assignment"]["endpoints"]:
        address = locality["lb_endpoints"][0]["endpoint"]["address"]["socket_address"]
        address["port_value"] = int(port(replicas[0].address))
    cluster["load_assignment"] = given["load_assignment"]
    cluster["dns_refresh_rate"] = "0.2s"
    cluster["typed_dns_resolver_config"] = {
        "name": "envoy.network.dns_resolver.cares",
        "typed_config": {
            "@type": "type.googleapis.com/"
            "envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig",
            "resolvers": [{"socket_address": {"address": "127.0.0.1", "port_value": known.port}}],
            "dns_resolver_options": {"no_default_search_domain": True},
        },
    }
    return yaml.safe_dump(configuration)


def addresses(admin: int) -> set[str]:
    """Of the replicas that Envoy knows, whether they are healthy or not."""
    with urllib.request.urlopen(f"http://127.0.0.1:{admin}/clusters", timeout=10) as page:
        return set(re.findall(r"(127\.0\.0\.\d+:\d+)::", page.read().decode()))


def test_a_replica_that_comes_back_elsewhere_has_its_sessions(tmp_path: Path) -> None:
    """Its name had no address meanwhile, as a pod's that is replaced: no others have moved."""
    own, admin = free_port(), free_port()
    first, second, third, elsewhere = (f"127.0.0.{last}:{own}" for last in (2, 3, 4, 5))
    with names() as known:
        for number, address in enumerate((first, second, third)):
            known[f"ntm-{number}.ntm-replicas"] = address.partition(":")[0]
        envoy = ENVOY._replace(filled_in=partial(by_name, known, admin))
        with (
            replicas(tmp_path, addresses=(first, second, third)) as site,
            balancing(envoy, site, tmp_path) as address,
            grpc.insecure_channel(address) as channel,
        ):
            before = led(channel)
            del known["ntm-0.ntm-replicas"]
            site[0].kill()
            wait_until(lambda: first not in addresses(admin), 30, "Envoy has no address")
            assert_only_its_own_moved(first, before, led(channel), {second, third})

            site[0].address = elsewhere
            site[0].start()
            site[0].wait()
            known["ntm-0.ntm-replicas"] = "127.0.0.5"
            wait_until(lambda: leads_to(address, site), 30, "Envoy leads to it again")
            assert led(channel) == {
                session: elsewhere if replica == first else replica
                for session, replica in before.items()
            }
