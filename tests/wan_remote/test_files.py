"""Small files that are for the user alone."""

from __future__ import annotations

import threading

from wan_remote.files import probe_folder


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
