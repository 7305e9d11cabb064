"""Who waits for room in an account: jobs of this machine stand in line, in the order in which they came.

A place is a locked file, so that it is free again when its process is gone.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .errors import StorageError
from .locks import is_at, opened, try_lock, unique

ENDING = ".place"


class Place:
    """One job's place; it is taken only by :meth:`stand`. Until then it is known where it would be.

    Args:
        folder: of the line, one an account.
        came: when its run began, in nanoseconds since 1970.
    """

    def __init__(self, folder: Path, came: int) -> None:
        self._folder = folder
        self._name = f"{came:020d}-{unique()}{ENDING}"
        self._held = contextlib.ExitStack()
        self._file: Any = None

    def before(self) -> int:
        """How many wait that came before.

        Raises:
            StorageError: the file system knows no locks.
        """
        waiting = 0
        for path in sorted(self._folder.glob(f"*{ENDING}")):
            if path.name < self._name and self._is_taken(path):
                waiting += 1
        return waiting

    def stand(self) -> None:
        """Take the place, so that those who come later wait.

        Raises:
            StorageError: the folder can't be written, or the file system knows no locks.
        """
        path = self._folder / self._name
        while self._file is None:
            with contextlib.suppress(OSError):
                self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with contextlib.ExitStack() as opening:
                file = opening.enter_context(opened(path))
                if try_lock(file, path) and is_at(file, path):  # else somebody just took it for one that was left
                    self._file, self._held = file, opening.pop_all()

    def leave(self) -> None:
        """Give the place up."""
        if self._file is not None:
            if os.name != "nt":  # there, an open file can't be taken away: the next one who looks does that
                with contextlib.suppress(OSError):
                    (self._folder / self._name).unlink()
            self._held.close()
            self._file = None

    def _is_taken(self, path: Path) -> bool:
        try:
            with opened(path) as file:
                if not try_lock(file, path):
                    return True
        except StorageError:
            return False
        with contextlib.suppress(OSError):
            path.unlink()
        return False


@contextlib.contextmanager
def place(folder: Path, came: int) -> Iterator[Place]:
    """A place in the line of ``folder``, given up at the end."""
    made = Place(folder, came)
    try:
        yield made
    finally:
        made.leave()
