"""One Ray cluster for the tests of a file that want one; it takes a share of a core for as long as it is there."""

from __future__ import annotations

import pytest

from tests.wan_local.ranks.groups import Cluster

CPUS = 4


@pytest.fixture(scope="module")
def cluster():
    cluster = Cluster(cpus=CPUS)
    yield cluster
    cluster.close()
