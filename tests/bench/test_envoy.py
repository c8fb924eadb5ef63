"""The Envoy that is measured has the configuration of deploy/balancers."""

from __future__ import annotations

import yaml

from bench.envoy import configured
from bench.processes import Served
from tests.deploy.manifests import addresses


def test_envoy_leads_to_the_servers_that_are_measured() -> None:
    """Each server has a locality of its own, the rest have none, and Envoy listens on the port."""
    servers = [Served("127.0.0.1:1001", pid=1), Served("127.0.0.2:1002", pid=1)]
    resources = yaml.safe_load(configured(servers, 1003))["static_resources"]
    (listener,), (cluster,) = resources["listeners"], resources["clusters"]

    assert addresses(cluster) == {"127.0.0.1": 1001, "127.0.0.2": 1002}
    assert listener["address"]["socket_address"] == {"address": "127.0.0.1", "port_value": 1003}
    assert cluster["lb_policy"] == "RING_HASH"
