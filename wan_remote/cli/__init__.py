"""The command line: ``python -m wan_remote <cloud>|jobs|keys ...``.

Exit status 0 (done), 1 (failed, with the reason in one line), 2 (wrong use), 130 (stopped by Ctrl-C).
"""

from __future__ import annotations

import asyncio
import io
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

FAILED, STOPPED = 1, 130  # and 2 from argparse
ASKING = ("keys",)  # commands that wait for the keyboard, where nothing looks at the line


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    given = parse(arguments)
    line = ProgressLine(sys.stderr)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file that it is sent to may not know a prompt's letters

    def stop(number: int, frame: FrameType | None) -> None:
        if given.command in ASKING:
            raise Interrupted("stopped")
        line.stop()

    before = signal.signal(signal.SIGINT, stop)
    try:
        result: Any = asyncio.run(commands.COMMANDS[given.command](given, line))
    except (RemoteError, Interrupted) as error:
        line.clear()
        print(f"{error}", file=sys.stderr)
        return STOPPED if isinstance(error, Interrupted) else FAILED
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
