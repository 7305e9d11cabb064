"""Names of files that are being downloaded: one for each call, and known for what they are when their process is gone.

After a stop the thread of a download may go on for a while, when the same inputs are long queued again: two of them
must never write to one file.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
import platform
import re
import secrets
import time
from pathlib import Path

LEFT_BEHIND = 3600.0  # seconds after which nobody writes to a part any more, wherever its process was
NAME = re.compile(r".*\.(?P<machine>[0-9a-f]{6})-(?P<process>[0-9]+)-[0-9a-f]{8}\.part")


def new_part(path: Path) -> Path:
    """Where ``path`` is downloaded to."""
    return path.with_name(f"{path.name}.{_machine()}-{os.getpid()}-{secrets.token_hex(4)}.part")


def clear_away(path: Path) -> None:
    """Drop what downloads of ``path`` left that were killed."""
    for part in path.parent.glob(f"{glob.escape(path.name)}.*part"):
        with contextlib.suppress(OSError):
            if _is_left(part):
                part.unlink()


def forget(part: Path) -> None:
    with contextlib.suppress(OSError):
        part.unlink(missing_ok=True)


def _is_left(part: Path) -> bool:
    found = NAME.fullmatch(part.name)
    if found and found["machine"] == _machine() and not _runs(int(found["process"])):
        return True
    return time.time() - part.stat().st_mtime > LEFT_BEHIND


def _machine() -> str:
    """A folder may be shared, and a process number means something on its own machine alone."""
    return hashlib.sha256(platform.node().encode()).hexdigest()[:6]


def _runs(process: int) -> bool:
    if os.name == "nt":  # there is no such question there; its files are known by their age
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True
