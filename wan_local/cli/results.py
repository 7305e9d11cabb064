"""What a command says on standard output, where that may have gone: what was made is there all the same."""

from __future__ import annotations

import os
import sys


def show(*lines: str) -> None:
    """Lines of a result; on stderr, all later ones too, where nobody reads standard output or its disk is full."""
    try:
        print("\n".join(lines), flush=True)
    except OSError as error:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())  # what is left in its buffer goes there
        os.close(nowhere)
        sys.stdout = sys.stderr
        print(f"standard output can't be written ({error.strerror}):", *lines, sep="\n", file=sys.stderr)
