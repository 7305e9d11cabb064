"""How the library tells the outside what it is doing, and asks whether to go on.

The library never prints and knows no user interface: the command line draws a bar from these calls, a
ComfyUI node moves its progress bar and raises the host's own stop.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """One report of a running job.

    Attributes:
        stage: ``"encode text"``, ``"encode images"``, ``"sample"``, ``"decode"``, ``"write"``;
            of a repair ``"match colours"``, ``"match ends"``.
        done: units finished, ``0..total``.
        total: units of the stage (steps when sampling, latent frames when encoding or decoding).
        x0: when sampling, the current clean estimate ``[B, 16, T, h, w]`` in model space, for a preview; else None.
        note: a line for a person, such as that decoding begins again in tiles; mostly empty.
        part, parts: which of several clips of one job this is about, from 1.
        skipped: when sampling, how many of the steps so far took no forward, see :mod:`wan_local.approximations`.
    """

    stage: str
    done: int
    total: int
    x0: torch.Tensor | None = None
    note: str = ""
    part: int = 1
    parts: int = 1
    skipped: int = 0


OnProgress = Callable[[Progress], None]
"""Called after every unit of work. It may raise (:class:`wan_local.errors.Cancelled`, or the host's own stop)
to end the run; nothing is left half done by that."""


def ignore(progress: Progress) -> None:
    """The default: tell nobody."""
