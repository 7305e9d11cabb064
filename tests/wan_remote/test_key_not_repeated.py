"""A cloud that repeats the key in what it says does not get it onto a screen, whole or in part."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.wan_remote.fault_case import GMI, POLL, WAVESPEED
from tests.wan_remote.stand_in.client import GMI_KEY, WAVESPEED_KEY
from wan_remote.account import account
from wan_remote.providers import PROVIDERS
from wan_remote.providers.base import refusal
from wan_remote.redact import redact
from wan_remote.secret import Secret
from wan_remote.transport import Answer

KEY = {GMI: GMI_KEY, WAVESPEED: WAVESPEED_KEY}


@pytest.mark.parametrize("provider", [GMI, WAVESPEED])
@pytest.mark.parametrize("field", ["error", "status", "model"])
def test_the_status_of_a_request(world, provider, field):
    assert world.run(world.request(provider)).end == "result"
    [job] = world.cloud.jobs()
    place = f"data.{field}" if provider == WAVESPEED else field
    told = f"worker refused credential {KEY[provider]}"
    world.cloud.faults(POLL[provider], {"kind": "edit", "put": {place: told}, "times": 0})
    done = world.cli(provider, "status", job["id"])
    assert done.returncode == 0
    assert "worker refused" in done.stdout
    assert KEY[provider][:12] not in done.stdout
    world.assert_no_key(done.stdout, done.stderr)


@pytest.mark.parametrize("provider", [GMI, WAVESPEED])
@pytest.mark.parametrize("what", ["requests", "models", "model"])
def test_what_an_account_is_told(world, provider, what):
    key = KEY[provider]
    rows = [{"request_id": "a-1", "id": "a-1", "status": "failed", "error": f"no credential {key}", "model_id": key}]
    model = {"model_id": PROVIDERS[provider].model, "note": f"made for {key}", key: [{"deep": key}]}
    data = {"requests": rows, "models": [*rows, model], "model": [model]}[what]
    if provider == GMI:
        data = {"requests": {"requests": rows}, "models": {"model_ids": [key]}, "model": model}[what]
    route = {"requests": "list"}.get(what, "models" if provider == WAVESPEED else what)
    body = {"code": 200, "data": data} if provider == WAVESPEED else data
    world.cloud.faults(f"{provider}.{route}", {"kind": "answer", "json": body, "times": 0})
    found = json.dumps(asyncio.run(account(provider, what, keys=world.keys)))
    assert "***" in found
    world.assert_no_key(found)


@pytest.mark.parametrize("provider", [GMI, WAVESPEED])
@pytest.mark.parametrize("before", [280, 297, 480, 497, 19_990])
def test_a_cut_through_the_key_shows_no_part_of_it(provider, before):
    """Pages that are no JSON are shown as they are, from their beginning."""
    key, cloud = KEY[provider], PROVIDERS[provider]
    body = b"x " * (before // 2) + b"token: " + key.encode() + b" rejected"
    reply = cloud.unwrap(Answer(status=400, headers={}, body=body))
    shown = str(refusal(cloud, reply, Secret(key, "a variable")))
    assert key[:4] not in shown, shown[-60:]


def test_what_shrinks_does_not_bring_a_cut_key_into_view():
    """Base64 becomes three points, so that what stands behind much of it is shown."""
    text = "QUJD" * 4998 + " " + GMI_KEY  # the key begins just before the 20,000th character
    assert redact(text, (GMI_KEY,)) == "... ***"
