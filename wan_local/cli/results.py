"""What a command says on standard output, where that may have gone: what was made is there all the same."""

from __future__ import annotations

import os
import sys


def show(*lines: str) -> None:
    """Lines of a result; on stderr where nobody reads standard output any more, or its disk is full."""
    try:
        print("\n".join(lines), flush=True)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left in its buffer, too
        print(f"standard output can't be written ({error.strerror}):", *lines, sep="\n", file=sys.stderr)
