"""Clips longer than those of training: how a person wants them made. Plain Python; what each way does is in
``model/rope.py`` (RIFLEx) and ``sampling/windows.py``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from .errors import InputError
from .shapes import TEMPORAL_STRIDE, Grid, check_frames, latent_frames, video_frames
from .words import counted

PLAIN, RIFLEX, WINDOWS = "plain", "riflex", "windows"
WAYS = (PLAIN, RIFLEX, WINDOWS)
WINDOW, OVERLAP = 81, 28  # frames; those of ComfyUI's Wan Context Windows, which makes 7 latent frames of 30


@dataclass(frozen=True, kw_only=True, slots=True)
class Longer:
    """What becomes of a clip that is longer than those of training.

    Attributes:
        way: "plain": one forward over all of it, as of any clip. "riflex": the same with a slower sense of time,
            against a second half that repeats the first. "windows": forwards over stretches that overlap.
        window: frames of a window, 4n+1.
        overlap: frames that neighbours share, as whole latent frames of 4; what is over is dropped.

    Raises:
        InputError: a value that can't be used, with what can.
    """

    way: str = PLAIN
    window: int = WINDOW
    overlap: int = OVERLAP

    def __post_init__(self) -> None:
        if self.way not in WAYS:
            raise InputError(f"longer={self.way!r} is not known; use {', '.join(WAYS)}")
        if self.way != WINDOWS:
            return
        check_frames(self.window, "window")
        most = video_frames(latent_frames(self.window)) - 1
        if isinstance(self.overlap, bool) or not isinstance(self.overlap, int) or self.overlap < 0:
            raise InputError(f"overlap={self.overlap!r} can't be used; give a whole number of frames from 0")
        if self.shared >= self.seen:
            raise InputError(
                f"overlap={self.overlap} leaves nothing new in a window of {counted(self.window, 'frame')}; give "
                f"at most {most}"
            )

    @property
    def seen(self) -> int:
        """Latent frames of a window."""
        return latent_frames(self.window)

    @property
    def shared(self) -> int:
        """Latent frames that neighbours share."""
        return self.overlap // TEMPORAL_STRIDE

    @property
    def acting(self) -> Longer:
        """The same without windows where none are made: what is to be told from another run."""
        return self if self.way == WINDOWS else Longer(way=self.way)

    def divides(self, grid: Grid) -> bool:
        """Whether a clip of this size is made in windows."""
        return self.way == WINDOWS and grid.frames > self.window

    def grid(self, grid: Grid) -> Grid:
        """The same size, with what one forward of the transformer sees of it."""
        # A window that does not begin the clip sees one latent frame more, see sampling/windows.py.
        return replace(grid, forward=self.window + TEMPORAL_STRIDE) if self.divides(grid) else grid
