"""Small files that are for the user alone."""

from __future__ import annotations

import os
import threading

import pytest

from wan_remote import files
from wan_remote.files import probe_folder, write_private


def test_many_may_begin_at_once_in_one_folder(tmp_path):
    failures: list[BaseException] = []

    def probe() -> None:
        try:
            for _ in range(200):
                probe_folder(tmp_path)
        except OSError as error:
            failures.append(error)

    threads = [threading.Thread(target=probe) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("refusals", [1, 5])
def test_a_file_that_somebody_reads_is_replaced_once_he_is_done(tmp_path, monkeypatch, refusals):
    """Windows refuses it until then."""
    path, real, left = tmp_path / "entry.json", os.replace, [None] * refusals
    path.write_bytes(b"before")

    def refusing(source, target):
        if left:
            left.pop()
            raise PermissionError(13, "Access is denied")
        return real(source, target)

    monkeypatch.setattr(os, "replace", refusing)
    write_private(path, b"after")
    assert path.read_bytes() == b"after"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_is_read_for_ever_is_not_waited_for_for_ever(tmp_path, monkeypatch):
    def refuse(source, target):
        raise PermissionError(13, "Access is denied")

    monkeypatch.setattr(files, "READ_OVER", 0.1)
    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(PermissionError):
        write_private(tmp_path / "entry.json", b"after")
    assert list(tmp_path.iterdir()) == []
