"""The file of keys, also as people write it by hand: read where it can be, else told what is wrong without its text."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import pytest

from wan_remote.cli import main
from wan_remote.errors import KeyInvalid, KeyMissing, StorageError
from wan_remote.keys import Keys

KEY = "abc123456789-of-gmi"
TEXT = f'{{"gmi": "{KEY}"}}'


@pytest.fixture
def file(tmp_path: Path):
    path = tmp_path / "keys.json"

    def write(data: bytes | str, mode: int = 0o600) -> Path:
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        path.chmod(mode)
        return path

    return write


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(folder=tmp_path, environ={})


@pytest.mark.parametrize(
    "data",
    [b"\xef\xbb\xbf" + TEXT.encode(), f"\n  {TEXT}\r\n", f'{{"gmi": " {KEY}\\n", "wavespeed": null, "more": 5}}'],
    ids=["a mark in front, as Notepad writes", "space around", "space in the key, others empty"],
)
def test_what_can_be_read(file, keys, data):
    file(data)
    assert keys.resolve("gmi").reveal() == KEY
    with pytest.raises(KeyMissing):
        keys.resolve("wavespeed")


@pytest.mark.parametrize(
    "data",
    [f'{{"gmi": "{KEY}",}}', KEY, f'"{KEY}"', f'["{KEY}"]', b"\xff\xfe" + TEXT.encode("utf-16-le"), "{", "",
     "[" * 100_000, f'{{"gmi": ["{KEY}"]}}', '{"gmi": 123456789}'],
    ids=["a comma too many", "the bare key", "the key in quotes", "a list", "UTF-16", "cut", "empty", "deep",
         "a list of keys", "a number"],
)  # fmt: skip
def test_what_can_not_be_read_is_told_with_the_form_it_should_have(file, keys, data):
    path = file(data)
    with pytest.raises(KeyInvalid) as told:
        keys.resolve("gmi")
    message = str(told.value)
    assert f"{path} can't be read" in message
    assert '{"gmi": "...", "wavespeed": "..."}' in message
    assert f"python -m wan_remote keys gmi --state {path.parent}" in message
    assert "no API key" not in message
    assert KEY[:6] not in message and "123456789" not in message  # noqa: PT018
    assert len(message.splitlines()) == 1
    assert told.value.__cause__ is None
    assert told.value.__suppress_context__ or told.value.__context__ is None  # it would show the file's text


def test_a_key_in_the_environment_needs_no_file(file, tmp_path):
    file("{")
    assert Keys(folder=tmp_path, environ={"GMI_API_KEY": KEY}).resolve("gmi").reveal() == KEY


def test_a_file_that_may_not_be_read(file, keys, monkeypatch):
    path = file(TEXT)

    def refuse(*given, **named):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(KeyInvalid, match=r"keys\.json can't be read \(Permission denied\)"):
        keys.resolve("gmi")
    with pytest.raises(StorageError, match="Permission denied"):
        keys.save("wavespeed", "another")
    monkeypatch.undo()
    assert path.read_text() == TEXT


def test_without_a_key_the_form_and_the_command_are_told(keys, tmp_path):
    with pytest.raises(KeyMissing) as told:
        keys.resolve("wavespeed")
    message = str(told.value)
    assert "WAVESPEED_API_KEY" in message
    assert f'{tmp_path / "keys.json"} as {{"wavespeed": "..."}}' in message
    assert f"python -m wan_remote keys wavespeed --state {tmp_path}" in message


@pytest.mark.parametrize("data", [f'{{"gmi": "{KEY}",}}', KEY, "[]"])
def test_a_file_that_can_not_be_read_is_not_written_over(file, keys, data):
    path = file(data)
    with pytest.raises(StorageError, match=r"keys\.json can't be read.*nothing was stored") as told:
        keys.save("wavespeed", "ws-new-key")
    assert path.read_text() == data
    assert "ws-new-key" not in str(told.value)
    assert KEY not in str(told.value)


def test_storing_one_key_keeps_all_else(file, keys):
    path = file(f'{{"gmi": "{KEY}", "note": "mine", "wavespeed": "old"}}', 0o644)
    keys.save("wavespeed", "ws-new-key")
    assert json.loads(path.read_text()) == {"gmi": KEY, "note": "mine", "wavespeed": "ws-new-key"}
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
@pytest.mark.parametrize(
    ("mode", "told"), [(0o644, True), (0o640, True), (0o604, True), (0o600, False), (0o400, False)]
)
def test_a_file_that_others_can_read_is_told_once(file, keys, caplog, mode, told):
    path = file(TEXT, mode)
    with caplog.at_level(logging.WARNING, "wan_remote"):
        for _ in range(3):
            assert keys.resolve("gmi").reveal() == KEY
    lines = [record.getMessage() for record in caplog.records]
    assert lines == ([f"{path} can be read by other users of this machine; run: chmod 600 {path}"] if told else [])


def test_the_command_that_lists_keys_says_what_is_wrong(file, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("GMI_API_KEY", raising=False)
    monkeypatch.setenv("WAVESPEED_API_KEY", "ws-key-of-mine")
    file("{")
    assert main(["keys", "--state", str(tmp_path)]) == 0
    gmi, wavespeed = capsys.readouterr().out.splitlines()
    assert gmi.startswith(f"gmi: {tmp_path / 'keys.json'} can't be read")
    assert wavespeed == "wavespeed: the variable WAVESPEED_API_KEY"
