"""What stands on a node when its run has ended, in place of the stage it was in: a line that stays true."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

from . import host

STOPPED, FAILED = "stopped", "failed"


@contextmanager
def last_word() -> Iterator[None]:
    """Take the stage off the running node if what is done here is stopped or fails. Also decorates a function.

    A stop shows its own text where it has one.
    """
    node = host.running_node()
    try:
        yield
    except BaseException as error:
        host.show_text(FAILED if host.is_failure(error) else str(error) or STOPPED, node)
        raise


def summary(images: Tensor, fps: float) -> str:
    """What came out, of IMAGE ``[F, H, W, 3]``: "81 frames of 1280x720, 5.06 s at 16 fps"; ``fps`` 0 is not known."""
    frames, height, width = images.shape[:3]
    lasting = f", {frames / fps:.2f} s at {fps:g} fps" if fps else ""
    return f"{frames} frames of {width}x{height}{lasting}"
