"""One stand-in for all tests of this folder, emptied before each of them, and the fault table they fill."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.wan_remote.stand_in.client import StandIn


@pytest.fixture(scope="session")
def stand_in() -> Iterator[StandIn]:
    with StandIn() as running:
        yield running


@pytest.fixture
def cloud(stand_in: StandIn) -> StandIn:
    stand_in.reset()
    return stand_in
