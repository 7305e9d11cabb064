"""One Ray cluster for every test that wants one."""

from __future__ import annotations

import pytest

from tests.wan_local.ranks.groups import Cluster

CPUS = 4


@pytest.fixture(scope="session")
def cluster():
    cluster = Cluster(cpus=CPUS)
    yield cluster
    cluster.close()
