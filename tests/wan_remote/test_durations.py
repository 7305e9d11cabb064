"""Durations that WaveSpeedAI's document allows and its price list does not know."""

from __future__ import annotations

import logging

import pytest

from tests.wan_remote.fault_case import WAVESPEED


@pytest.mark.parametrize(("duration", "told"), [(5, False), (6, True), (9, True), (10, False)])
def test_lengths_without_a_price_are_taken_with_a_warning(world, caplog, duration, told):
    outcome = world.run(world.wavespeed(duration=duration))
    assert outcome.end == "result"
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    said = (
        f"duration={duration} stands in WaveSpeedAI's document but not in its price list, which knows 5 and 10; "
        "python -m wan_remote wavespeed price tells what it would cost"
    )
    assert lines == ([said] if told else [])


def test_asking_for_the_price_of_one_warns_of_nothing(world, caplog):
    assert world.cli(WAVESPEED, "price", "--duration", "7").returncode == 0
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
