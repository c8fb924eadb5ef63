"""The fake server that commands talk to, in the place of a real one."""

from __future__ import annotations

from tests.client.conftest import client as client
from tests.client.conftest import fake as fake
from tests.client.conftest import running as running
