"""The file that keys may be kept in: read as people write it by hand, and never guessed at.

A file that can't be understood is an error and no missing key: the key is there, and another one stored over it would
take the other cloud's away. No message holds any of its text.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .files import write_private

OTHERS = 0o077  # mode bits of group and world

log = logging.getLogger("wan_remote")
_told: set[Path] = set()  # files whose mode was spoken of; once is enough


class Unreadable(Exception):  # noqa: N818
    """The file is there and can't be used; the text says why."""


@dataclass(frozen=True, slots=True)
class KeyFile:
    """JSON: name of a cloud to key.

    Attributes:
        path: of the file, which need not exist.
    """

    path: Path

    def table(self) -> dict[str, Any]:
        """All that is in the file; empty if there is none.

        Raises:
            Unreadable: it can't be read, or holds something else.
        """
        try:
            data = self.path.read_bytes()
            self._look_at_mode()
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except OSError as error:
            raise Unreadable(error.strerror or "input/output error") from None
        try:
            found = json.loads(data.decode("utf-8-sig"))  # Notepad puts a mark in front
        except UnicodeDecodeError:
            raise Unreadable("it is not UTF-8") from None
        except json.JSONDecodeError as error:
            raise Unreadable(f"it is no JSON: line {error.lineno}, column {error.colno}") from None
        except RecursionError:
            raise Unreadable("it is no JSON") from None
        if not isinstance(found, dict):
            raise Unreadable("it is no JSON object")
        return found

    def get(self, name: str) -> str:
        """The key of a cloud; empty if none is set.

        Raises:
            Unreadable: as for :meth:`table`, or the key is no text.
        """
        value = self.table().get(name)
        if value is not None and not isinstance(value, str):
            raise Unreadable(f"what it holds for {name} is no text")
        return (value or "").strip()

    def put(self, table: Mapping[str, Any]) -> None:
        """Write the file anew, whole or not at all, for its owner alone; raises OSError."""
        write_private(self.path, json.dumps(table).encode())

    def _look_at_mode(self) -> None:
        if os.name != "nt" and self.path.stat().st_mode & OTHERS and self.path not in _told:
            _told.add(self.path)
            log.warning("%s can be read by other users of this machine; run: chmod 600 %s", self.path, self.path)
