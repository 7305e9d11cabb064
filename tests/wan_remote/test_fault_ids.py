"""Every one of the 75 faults is played by a test, and stands in the recorded table."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.wan_remote.fault_ids import FAULTS, faults_of, place

ROOT = Path(__file__).resolve().parents[2]
ALL = [f"F{number}" for number in range(1, 76)]


@pytest.fixture(scope="module")
def collected(request: pytest.FixtureRequest) -> list[str]:
    """The ids of all tests of this folder: those of this very session if it has them all, else collected anew."""
    here, options = Path(__file__).parent, request.config.option
    picked = options.keyword or options.markexpr or any("::" in name for name in options.file_or_dir)
    found = [item for item in request.session.items if item.path.parent == here]
    if not picked and {item.path for item in found} == set(here.glob("test_*.py")):
        return [item.nodeid for item in found]
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:xdist", "tests/wan_remote"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return [line for line in done.stdout.splitlines() if "::" in line]


def test_the_list_is_whole():
    assert list(FAULTS) == ALL


@pytest.mark.parametrize("name", ALL)
def test_a_fault_has_its_tests(collected, name):
    for pattern in FAULTS[name][1]:
        assert any(place(pattern).search(test) for test in collected), f"{name}: no test has {pattern} in its id"


@pytest.mark.parametrize("name", ALL)
def test_a_fault_stands_in_the_table(name):
    if os.environ.get("REMOTE_FAULT_TABLE"):
        pytest.skip("the table is being written")
    text = Path(__file__).with_name("faults.md").read_text("utf-8")
    rows = [line.split("|")[1] for line in text.splitlines() if line.count("|") == 6]
    assert any(name in cell.replace(",", " ").split() for cell in rows), "write it anew with REMOTE_FAULT_TABLE"


def test_places_are_not_mixed_up():
    folder = "tests/wan_remote/"
    assert faults_of(f"{folder}test_submission.py::test_submit[gmi: 429 with Retry-After 3]") == ("F17",)
    assert faults_of(f"{folder}test_submission.py::test_submit[gmi: 429 with Retry-After of a day]") == ("F20",)
    assert faults_of(f"{folder}test_submission.py::test_submit[wavespeed: 503, and the job was made]") == ("F23",)
    assert faults_of(f"{folder}test_stops_and_restarts.py::test_stop_while_waiting[between polls-cancel]") == ("F64",)
    assert faults_of("test_elsewhere") == ()
    assert re.fullmatch(r"F\d+", next(iter(FAULTS)))
