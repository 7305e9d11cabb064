"""Base addresses, from the environment alone."""

from __future__ import annotations

import pytest

from wan_remote.errors import InvalidRequest
from wan_remote.providers import PROVIDERS


def test_base_addresses_are_checked():
    from wan_remote import endpoints

    def base_url(name: str, environ: dict[str, str]) -> str:
        cloud = PROVIDERS[name]
        return endpoints.base_url(cloud.base_variable, cloud.base, environ)

    assert base_url("gmi", {}) == "https://console.gmicloud.ai/api/v1/ie/requestqueue"
    assert base_url("wavespeed", {"WAVESPEED_BASE_URL": "https://x.com/v3/"}) == "https://x.com/v3"
    assert base_url("gmi", {"GMI_BASE_URL": "http://127.0.0.1:8000"}) == "http://127.0.0.1:8000"
    for bad in (
        "http://x.com",
        "x.com",
        "https://u:p@x.com",
        "https://x.com/?a=1",
        "https://x.com/#a",
        "https://[x",
        "file:///a",
    ):
        with pytest.raises(InvalidRequest, match="GMI_BASE_URL"):
            base_url("gmi", {"GMI_BASE_URL": bad})
