"""What a person should know though nothing is wrong enough to stop: told at once, to whoever listens.

The library prints nothing. A command line or a host registers what shows a notice to its user; without one it is a
:class:`WanNotice`, a warning of Python's own.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Listener = Callable[[str], None]


class WanNotice(UserWarning):
    """Something to know about a model or a run; the text is one line for a person."""


def _warn(text: str) -> None:
    warnings.warn(text, WanNotice, stacklevel=3)


_listener: Listener = _warn


def tell(text: str) -> None:
    """Tell the user of this process something."""
    _listener(text)


def listen(listener: Listener | None) -> Listener:
    """Have ``listener`` called with every notice of this process, None for warnings again; gives the one before."""
    global _listener
    before, _listener = _listener, listener or _warn
    return before


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """As :func:`listen`, for the time of a ``with``."""
    before = listen(listener)
    try:
        yield
    finally:
        listen(before)
