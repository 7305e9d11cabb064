"""The command line: ``python -m wan_remote <cloud>|jobs|keys ...``.

Exit status 0 (done), 1 (failed, with the reason in one line), 2 (wrong use).
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Any

from ..errors import Interrupted, RemoteError
from . import commands
from .arguments import parse
from .progress_line import ProgressLine


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    given = parse(arguments)
    line = ProgressLine(sys.stderr)

    def stop(number: int, frame: FrameType | None) -> None:
        line.stop()

    before = signal.signal(signal.SIGINT, stop)
    try:
        result: Any = asyncio.run(commands.COMMANDS[given.command](given, line))
    except (RemoteError, Interrupted) as error:
        line.clear()
        print(f"{error}", file=sys.stderr)
        return 1
    finally:
        signal.signal(signal.SIGINT, before)
    line.clear()
    text, status = result if isinstance(result, tuple) else (result, 0)
    try:
        print(text, flush=True)
    except BrokenPipeError:  # whoever read it has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return status


__all__ = ["main"]
