"""When a cloud says a job was made. A job whose answer was lost is found again by it, so an hour matters."""

from __future__ import annotations

import pytest

from wan_remote.providers.wavespeed import WaveSpeed

NOON = 1795176000.0  # 2026-11-20T12:00:00Z


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2026-11-20T12:00:00Z", NOON),
        ("2026-11-20T12:00:00.5z", NOON + 0.5),
        ("2026-11-20T12:00:00.123456789Z", NOON + 0.123456789),
        ("2026-11-20T20:00:00+08:00", NOON),
        ("2026-11-20T20:00:00.25+08:00", NOON + 0.25),
        ("2026-11-20T20:00:00.25+0800", NOON + 0.25),
        ("2026-11-20T07:00:00.123456789-05:00", NOON + 0.123456789),
        ("2026-11-20T07:00:00-05", NOON),
        ("2026-11-20 12:00:00+00:00", NOON),
    ],
)
def test_zones_and_fractions(text, seconds):
    job = WaveSpeed().job({"id": "a-1", "status": "created", "created_at": text})
    assert job.created == pytest.approx(seconds, abs=1e-5)


@pytest.mark.parametrize("unit", [1, 10**3, 10**6, 10**9])
def test_numbers_in_any_unit(unit):
    job = WaveSpeed().job({"id": "a-1", "status": "created", "created_at": int(NOON) * unit})
    assert job.created == NOON


@pytest.mark.parametrize("number", [10**400, -5, 0, float("nan"), float("inf")])
def test_numbers_that_are_no_time(number):
    assert WaveSpeed().job({"id": "a-1", "status": "created", "created_at": number}).created is None


WITHOUT_ZONE = ["2026-11-20T12:00:00", "2026-11-20 12:00:00.5"]  # may be any of a day


@pytest.mark.parametrize(
    "text", ["", "yesterday", *WITHOUT_ZONE, "2026-11-20T12:00:00+99:00", "2026-13-01T00:00:00Z", True, None]
)
def test_what_is_no_time(text):
    assert WaveSpeed().job({"id": "a-1", "status": "created", "created_at": text}).created is None
