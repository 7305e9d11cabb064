"""The key goes to its own cloud and nowhere else: not to logs, errors, files on disk, or the screen."""

from __future__ import annotations

import pytest

from tests.wan_remote.fault_case import GMI, WAVESPEED, answer
from tests.wan_remote.stand_in.client import GMI_KEY, WAVESPEED_KEY

KEY = {GMI: GMI_KEY, WAVESPEED: WAVESPEED_KEY}


@pytest.mark.parametrize("provider", [GMI, WAVESPEED])
@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 409, 413, 422, 429, 500, 503])
def test_a_cloud_that_echoes_the_key_does_not_get_it_into_an_error(world, provider, status):
    echo = f"no: Authorization: Bearer {KEY[provider]} at https://h/x?X-Amz-Signature=abc and {'QUJD' * 100}"
    world.cloud.faults(f"{provider}.submit", answer(provider, status, echo, times=0))
    world.cloud.faults(f"{provider}.list", {"kind": "answer", "status": 500, "times": 0})
    outcome = world.run(world.request(provider))
    assert outcome.end != "result"
    world.assert_no_leak(outcome)


@pytest.mark.parametrize("provider", [GMI, WAVESPEED])
def test_a_failed_record_that_echoes_the_key(world, provider):
    text = f"worker said {KEY[provider]} and https://storage/x.mp4?X-Goog-Signature=abc"
    step = {"status": "failed", "error": text, "outcome": {"error": text}}
    outcome = world.run(world.request(provider), plan=[step])
    name = f"{provider}: a failed record that echoes the key"
    world.check("poll", name, outcome, end="JobFailed", posts=1, journal="failed")


@pytest.mark.parametrize("provider", [GMI, WAVESPEED])
def test_the_key_goes_to_the_api_alone(world, provider):
    assert world.run(world.request(provider)).end == "result"
    view = world.cloud.view(full=True)
    assert view["violations"] == []
    asked = [record for record in view["records"] if record["port"] == "api"]
    other = [record for record in view["records"] if record["port"] != "api"]
    assert all(record["headers"]["authorization"] == f"Bearer {KEY[provider]}" for record in asked)
    assert other
    assert KEY[provider] not in str(other)


def test_netrc_is_not_used(world, monkeypatch):
    netrc = world.tmp / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    outcome = world.run(world.wavespeed())
    world.check("control", "wavespeed: a netrc entry for the host", outcome, end="result", posts=1)
    told = {record["headers"].get("authorization") for record in world.cloud.records()}
    assert told == {f"Bearer {WAVESPEED_KEY}", None}
    assert world.cloud.view()["violations"] == []


def test_proxy_variables_are_honoured(world, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, world.cloud.gmi)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    outcome = world.run(world.gmi())
    world.check("control", "gmi: a proxy stands in the environment", outcome, end="result", posts=1)
    assert all(record["proxied"] for record in world.cloud.records())


def test_the_organisation_goes_with_the_key(world, monkeypatch):
    monkeypatch.setenv("GMI_ORG_ID", "org-42")
    assert world.run(world.gmi()).end == "result"
    asked = [record for record in world.cloud.records() if record["port"] == "api"]
    assert {record["headers"].get("x-organization-id") for record in asked} == {"org-42"}
    assert world.cloud.view()["violations"] == []


def test_a_key_file_is_for_its_owner_alone(world, monkeypatch):
    monkeypatch.delenv("GMI_API_KEY")
    path = world.save_key(GMI, GMI_KEY)
    assert path.stat().st_mode & 0o777 == 0o600
    outcome = world.run(world.gmi())
    assert outcome.end == "result"
    world.assert_no_leak(outcome, ignore=(path,))


def test_base_addresses_are_https_but_for_loopback(world, monkeypatch):
    for address in ("http://example.com", "ftp://example.com", "http://10.0.0.1", "example.com"):
        monkeypatch.setenv("GMI_BASE_URL", address)
        outcome = world.run_made(world.gmi)
        assert outcome.end not in ("result", "Unreachable"), address
        assert "GMI_BASE_URL" in outcome.text


@pytest.mark.parametrize("provider", [GMI, WAVESPEED])
def test_a_debug_log_of_everything_shows_no_signed_address(world, provider):
    """A host may log at debug level, and the HTTP library then writes down each path it asks for, query and all."""
    outcome = world.run(world.request(provider))
    assert outcome.end == "result"
    world.assert_no_leak(outcome, all_logs=True)
