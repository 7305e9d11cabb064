"""What a clip is asked for: checked when it is made."""

from __future__ import annotations

import logging

import pytest

from tests.wan_remote.fault_case import WAVESPEED
from wan_remote import GMIRequest, WaveSpeedRequest
from wan_remote.errors import InvalidRequest


def test_five_and_five_point_nought_are_the_same_guidance(world):
    world.run(world.wavespeed(guidance_scale=5))
    world.run(world.wavespeed(guidance_scale=5.0))
    assert world.cloud.accepted() == 1


@pytest.mark.parametrize("take", [0, -1, 1.0, True, "2", 10000])
@pytest.mark.parametrize("make", [GMIRequest, WaveSpeedRequest])
def test_what_a_take_can_be(world, make, take):
    with pytest.raises(InvalidRequest, match="take=.* give a whole number from 1 to 9999"):
        world.request(make.provider, take=take)


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
