"""The command line: ``python -m wan_local generate``, ``chain``, ``ends``, ``decode``, ``inspect`` and ``bench``.

Results go to stdout, progress and errors to stderr. Exit status: 0 done, 1 failed with a one-line reason, 2 wrong
use, 130 stopped by Ctrl-C, 128 and its number by another signal.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from .. import notices
from ..command import pasted, program
from ..errors import Cancelled, WanError

PROGRAM = program()
DONE, FAILED, STOPPED = 0, 1, 130  # and 2 from argparse


class Parser(argparse.ArgumentParser):
    """argparse whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def main(argv: list[str] | None = None) -> int:
    """Run one command; return the exit status."""
    from . import bench, chain, decode, ends, generate, inspect, signals

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file that it is sent to may not know a path's letters
    what = "First and last frame to video, with Wan2.1 FLF2V or Wan2.2."
    parser = Parser(prog=PROGRAM, description=what, allow_abbrev=False)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND", parser_class=Parser)
    for command in (generate, chain, ends, decode, inspect, bench):
        command.add_to(commands)
    args = parser.parse_args(argv)
    try:
        with notices.listening(lambda text: print(f"warning: {text}", file=sys.stderr)), signals.raising():
            args.run(args)
        sys.stdout.flush()
    except (KeyboardInterrupt, Cancelled) as stop:
        status = stop.status if isinstance(stop, signals.Ended) else STOPPED
        return _say(args.parser.prog, "stopped; a finished file from before is untouched", status)
    except WanError as error:
        return _say(args.parser.prog, str(error), FAILED)
    except BrokenPipeError:  # whoever read it has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except MemoryError as error:
        return _say(args.parser.prog, f"out of memory ({error}); use a smaller size or length", FAILED)
    except RuntimeError as error:
        from ..free_memory import is_out_of_memory

        if not is_out_of_memory(error):
            raise
        if "cpuallocator" in str(error).lower():
            return _say(args.parser.prog, "out of memory; use a smaller size or a shorter length", FAILED)
        return _say(args.parser.prog, "out of GPU memory; use a smaller size, a shorter length or --device cpu", FAILED)
    return DONE


def to_paste(words: Sequence[str]) -> str:
    """A command of this program as a person's shell takes it."""
    return f"{PROGRAM} {pasted(words)}"


def _say(program: str, message: str, status: int) -> int:
    print(f"{program}: {' '.join(message.split())}", file=sys.stderr)
    return status
