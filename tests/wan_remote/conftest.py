"""One stand-in for all tests of this folder, emptied before each of them, and the fault table they fill."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.wan_remote import fault_table, scripted
from tests.wan_remote.journals import StoppedClock
from tests.wan_remote.stand_in.client import StandIn
from wan_remote.journal import Journal

ROWS = pytest.StashKey[list[fault_table.Row]]()


@pytest.fixture(scope="session")
def stand_in() -> Iterator[StandIn]:
    with StandIn() as running:
        yield running


@pytest.fixture
def script() -> Iterator[scripted.Script]:
    with scripted.serving() as running:
        yield running


@pytest.fixture
def cloud(stand_in: StandIn) -> StandIn:
    stand_in.reset()
    return stand_in


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    made = Journal(folder=tmp_path / "jobs", clock=StoppedClock())
    made.prepare()
    return made


@pytest.fixture
def world(cloud, tmp_path, monkeypatch, caplog, request):
    from tests.wan_remote.world import World

    rows = request.config.stash.setdefault(ROWS, [])
    surroundings = {"tmp": tmp_path, "monkeypatch": monkeypatch, "caplog": caplog}
    yield (made := World(cloud=cloud, rows=rows, test=request.node.nodeid, **surroundings))
    made.close()


def pytest_terminal_summary(terminalreporter, config: pytest.Config) -> None:
    rows = config.stash.get(ROWS, [])
    if not rows:
        return
    if os.environ.get("REMOTE_FAULT_TABLE"):
        fault_table.write(rows, Path(os.environ["REMOTE_FAULT_TABLE"]))
    if terminalreporter.hasopt("A"):
        terminalreporter.section("faults and what became of them")
        terminalreporter.write(fault_table.text(rows))
