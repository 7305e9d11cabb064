"""What a cloud's list says, and what it is made to say."""

from __future__ import annotations

import requests

import wan_remote
from tests.wan_remote.stand_in.client import GMI_KEY, WAVESPEED_KEY


def gmi_rows(world) -> list[dict]:
    found = requests.get(
        world.cloud.gmi + "/apikey/requests",
        params={"model_id": wan_remote.GMIRequest.model},
        headers={"authorization": f"Bearer {GMI_KEY}"},
        timeout=10,
    )
    return found.json()["requests"]


def wavespeed_rows(world, key: str = WAVESPEED_KEY) -> dict:
    found = requests.post(
        f"{world.cloud.wavespeed}/predictions",
        json={"page": 1, "page_size": 100},
        headers={"authorization": f"Bearer {key}"},
        timeout=10,
    )
    return found.json()


def show(world, provider: str, body: object) -> None:
    """From now on the list is this."""
    world.cloud.faults(f"{provider}.list", {"kind": "answer", "json": body, "times": 0})
