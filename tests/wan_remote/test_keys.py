"""Where keys come from, and that none shows itself."""

from __future__ import annotations

import threading
import time

import pytest

from wan_remote.errors import KeyInvalid, KeyMissing
from wan_remote.key_file import KeyFile
from wan_remote.keys import Keys
from wan_remote.providers import PROVIDERS
from wan_remote.secret import Secret


def test_a_key_does_not_show_itself():
    secret = Secret("sk-abcdef-123456", "a variable")
    assert "abcdef" not in f"{secret} {secret!r} {secret!s} {[secret]}"
    assert secret.scope == Secret("sk-abcdef-123456", "elsewhere").scope != Secret("sk-other", "x").scope
    assert len(secret.scope) == 8
    with pytest.raises(TypeError):
        __import__("copy").copy(secret)


def test_keys_come_from_the_environment_then_from_the_file(tmp_path):
    stored = Keys(folder=tmp_path, environ={})
    with pytest.raises(KeyMissing, match=r"GMI_API_KEY, or .*keys\.json"):
        stored.resolve("gmi")
    path = stored.save("gmi", "  from-the-file\n")
    stored.save("wavespeed", "another")
    assert path.stat().st_mode & 0o777 == 0o600
    assert stored.resolve("gmi").reveal() == "from-the-file"
    assert stored.resolve("gmi").source == str(path)
    both = Keys(folder=tmp_path, environ={"GMI_API_KEY": "from-the-environment"})
    assert both.resolve("gmi").reveal() == "from-the-environment"
    assert both.resolve("wavespeed").reveal() == "another"
    for text in ("{", "[1]", '{"gmi": 5}'):
        path.write_text(text)
        with pytest.raises(KeyInvalid):
            stored.resolve("gmi")


@pytest.mark.parametrize(("provider", "value"), [("gmi", " "), ("nowhere", "k"), ("gmi", "")])
def test_no_key_is_not_stored(tmp_path, provider, value):
    with pytest.raises(KeyInvalid):
        Keys(folder=tmp_path, environ={}).save(provider, value)
    with pytest.raises(KeyInvalid):
        Keys(environ={}).save("gmi", "good")


def test_an_organisation_is_checked():
    headers = PROVIDERS["gmi"].headers
    assert headers({}) == {}
    assert headers({"GMI_ORG_ID": " org-1 "}) == {"X-Organization-ID": "org-1"}
    with pytest.raises(KeyInvalid, match="GMI_ORG_ID"):
        headers({"GMI_ORG_ID": "a\nb"})


def test_two_keys_stored_at_once_are_both_there(tmp_path, monkeypatch):
    """Two tabs, or a tab and the command line."""
    keys, real = Keys(folder=tmp_path, environ={}), KeyFile.table

    def slow(file):
        found = real(file)
        time.sleep(0.1)
        return found

    monkeypatch.setattr(KeyFile, "table", slow)
    threads = [threading.Thread(target=keys.save, args=(name, f"sk-{name}-123456")) for name in PROVIDERS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(keys.resolve(name).reveal() == f"sk-{name}-123456" for name in PROVIDERS)
