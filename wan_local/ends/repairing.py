"""A clip whose given frames are made to be their images: by colour alone, or exactly.

Works on the frames of any model. One frame is worked on at a time, on the device that is asked for, beside the few
that the nearest image takes part in; the clip itself and the result stay where they are.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import InputError, NumericError
from ..progress import OnProgress, Progress, ignore
from ..settings import FIT, MAX_REACH, REACH, REPAIRS, REPORT, Fit, Repair, check_repair
from .colour import fitted_map, mapped
from .exact import COARSE_REACH, Landing, Spread, landing
from .flash import levelled, levels_of, steps_to_remove
from .report import Report, check, report

if TYPE_CHECKING:
    from ..keyframes import Keyframe

COLOUR, EXACT = "match colours", "match ends"  # stages
FRAMES_HELD = 16  # at most, as float32, all that is calculated beside them counted


@dataclass(frozen=True, kw_only=True, slots=True)
class Repaired:
    """A clip and what was done to it.

    Attributes:
        frames: ``[F, H, W, 3]`` 0..1; of "report" the very tensor that was given.
        how: "report", "colour" or "exact".
        before, after: both ends and the evenness, see :class:`Report`; of "report" the same.
        landings: frame to where it landed beside its image, of "exact" alone.
        levelled: frames that a flash was taken out of.
        mapped: frames whose image asked for other colours.
    """

    frames: Tensor
    how: Repair
    before: Report
    after: Report
    landings: Mapping[int, Landing]
    levelled: tuple[int, ...]
    mapped: tuple[int, ...]

    def notes(self) -> list[str]:
        """What a person should know besides the figures, a line each."""
        name = self.before.name
        lines = [
            f"{name(at)} landed {where.pixels:.1f} pixels beside its image; that frame alone was replaced"
            for at, where in self.landings.items()
            if where.beside
        ]
        if self.levelled:
            lines.append(f"a flash was taken out of frames {', '.join(map(str, self.levelled))}")
        if self.how == "colour" and not self.mapped and self.before.matches:
            lines.append("no colours were changed: no single change brings them nearer to the images")
        return lines

    def __str__(self) -> str:
        """Figures, before and after, a line each."""
        before, after = self.before, self.after
        lines = []
        for at, found in before.matches.items():
            then = f" -> {after.matches[at]}" if self.how != REPORT else ""
            lines.append(f"{before.name(at)}: {found}{then} ({100 * after.matches[at].ssim:.0f}% match by SSIM)")
        changed = f" -> {after.jitter:.2f}{_percent(before.jitter, after.jitter)}" if self.how != REPORT else ""
        lines.append(f"jitter: {before.jitter:.2f}{changed}")
        then = f" -> x{after.jump:.2f} at frame {after.jump_at}" if self.how != REPORT else ""
        lines.append(f"largest jump: x{before.jump:.2f} at frame {before.jump_at}{then}")
        return "\n".join([*lines, *self.notes()])

    def as_json(self) -> dict[str, Any]:
        """For ``json.dumps``, see :meth:`Report.as_json`."""
        return {
            "repair": self.how,
            "before": self.before.as_json(),
            "after": self.after.as_json(),
            "landed": {str(at): {"pixels": round(where.pixels, 2), "together": round(where.together, 2),
                                 "beside": where.beside} for at, where in self.landings.items()},
            "levelled": list(self.levelled),
            "colours_changed_at": list(self.mapped),
            "notes": self.notes(),
        }  # fmt: skip


@torch.no_grad()
def repair(
    frames: Tensor,
    images: Mapping[int, Tensor],
    how: Repair = REPORT,
    *,
    fit: Fit = FIT,
    reach: int = REACH,
    remove_flash: bool = False,
    only_measured: Collection[int] = (),
    device: torch.device | str | None = None,
    on_progress: OnProgress = ignore,
) -> Repaired:
    """Measure the frames that images were given for, and bring the clip to them.

    Args:
        frames: ``[F, H, W, 3]`` 0..1, on any device; they are not changed.
        images: frame, from 0, to its image ``[3, H0, W0]`` 0..1 of any size.
        how: "report" only measures. "colour" gives every frame the change of colours that its nearest images ask for,
            in between by time. "exact" then replaces each given frame by its image, and gives what is left of the
            difference to the frames beside it.
        fit: what to do with images of another aspect, as the pipeline does.
        reach: frames over which that difference fades.
        remove_flash: also level steps of brightness near the ends that no image tells from true light.
        only_measured: frames of ``images`` that the clip is not to show as they are.
        device: where to calculate; None is where the frames are.
        on_progress: called as frames are done; may raise to stop.

    Raises:
        InputError: frames of another shape, a repair without an image, or a value that can't be.
        NumericError: NaN or infinity in a frame.
    """
    if how not in REPAIRS:
        raise InputError(f"repair={how!r} is not known; use {', '.join(REPAIRS)}")
    if isinstance(reach, bool) or not isinstance(reach, int) or not 1 <= reach <= MAX_REACH:
        raise InputError(f"reach={reach!r} can't be used; give a number of frames from 1 to {MAX_REACH}")
    check_repair(how, [at not in only_measured for at in images])
    wanted = check(frames, images, fit)
    _check_finite(frames)
    before = report(frames, images, fit)
    if how == REPORT:
        return Repaired(frames=frames, how=how, before=before, after=before, landings={}, levelled=(), mapped=())
    wanted = {at: image for at, image in wanted.items() if at not in only_measured}
    work = _Work(frames, wanted, torch.device(device or frames.device), on_progress)
    work.colour(remove_flash)
    if how == "exact":
        work.exact(reach)
    return Repaired(
        frames=work.made, how=how, before=before, after=report(work.made, images, fit), landings=work.landings,
        levelled=work.levelled, mapped=tuple(at for at, change in work.maps.items() if change.any()),
    )  # fmt: skip


def repair_to(frames: Tensor, given: Mapping[int, Keyframe], how: Repair, **more: Any) -> Repaired:
    """As :func:`repair`, to the images of a clip by frame; one of less than full strength is only measured."""
    images = {at: keyframe.images[0] for at, keyframe in given.items()}
    return repair(frames, images, how, only_measured=[at for at in given if not given[at].shown], **more)


class _Work:
    """One clip on its way."""

    def __init__(
        self, frames: Tensor, wanted: Mapping[int, Tensor], device: torch.device, on_progress: OnProgress
    ) -> None:
        self._frames, self._device, self._on_progress = frames, device, on_progress
        self._wanted = {at: image.permute(1, 2, 0) for at, image in wanted.items()}  # [H, W, 3]
        self.made = torch.empty(frames.shape, dtype=torch.float32, device=frames.device)
        self.maps: dict[int, Tensor] = {}
        self.landings: dict[int, Landing] = {}
        self.levelled: tuple[int, ...] = ()

    def colour(self, remove_flash: bool) -> None:
        count = len(self._frames)
        levels = torch.stack([levels_of(self._taken(self._frames, at)).cpu() for at in range(count)])
        known = {at: levels_of(image).cpu() for at, image in self._wanted.items() if at in (0, count - 1)}
        steps = steps_to_remove(levels, known, remove_flash)
        self.levelled = tuple(torch.nonzero(steps.any(1)).flatten().tolist())
        for at, image in self._wanted.items():
            self.maps[at] = fitted_map(levelled(self._taken(self._frames, at), steps[at]), image.to(self._device))
        for at in range(count):
            frame = levelled(self._taken(self._frames, at), steps[at])
            self.made[at] = mapped(frame, self._map_at(at)).clamp(0.0, 1.0)
            self._tell(COLOUR, at + 1, count)

    def exact(self, reach: int) -> None:
        """Each given frame, then those beside it, up to the next given ones."""
        given = sorted(self._wanted)
        far = COARSE_REACH * MAX_REACH
        for index, at in enumerate(given):
            image, frame = _as_batch(self._wanted[at].to(self._device)), _as_batch(self._taken(self.made, at))
            found = self.landings[at] = landing(frame, image)
            for side in (-1, 1):
                beside = [abs(other - at) for other in given if (other - at) * side > 0]
                if not found.beside:
                    self._spread(at, side, Spread(frame, image, reach, min(beside, default=far), found.trust))
            self._tell(EXACT, index + 1, len(given))
        for at in given:
            self.made[at] = self._wanted[at]

    def _spread(self, at: int, side: int, spread: Spread) -> None:
        for distance in range(1, spread.reach):
            beside = at + side * distance
            if not 0 <= beside < len(self.made):
                return
            frame = spread(_as_batch(self._taken(self.made, beside)), distance)
            self.made[beside] = frame[0].permute(1, 2, 0).clamp(0.0, 1.0)
            self._tell(EXACT, sorted(self._wanted).index(at), len(self._wanted))

    def _map_at(self, frame: int) -> Tensor:
        """The maps of the nearest images on both sides, weighted by time; beyond the outermost its own."""
        below = max((at for at in self.maps if at <= frame), default=min(self.maps))
        above = min((at for at in self.maps if at >= frame), default=max(self.maps))
        if below == above:
            return self.maps[below]
        return torch.lerp(self.maps[below], self.maps[above], (frame - below) / (above - below))

    def _taken(self, frames: Tensor, at: int) -> Tensor:
        """One frame ``[H, W, 3]`` float32, where the calculation is done."""
        return frames[at].to(self._device, torch.float32)

    def _tell(self, stage: str, done: int, total: int) -> None:
        self._on_progress(Progress(stage=stage, done=done, total=total))


def work_bytes(height: int, width: int) -> int:
    """About what is held at a time, for frames of this size."""
    return FRAMES_HELD * height * width * 3 * 4


def _as_batch(frame: Tensor) -> Tensor:
    return frame.permute(2, 0, 1)[None].contiguous()


def _check_finite(frames: Tensor) -> None:
    for at, frame in enumerate(frames):
        if not torch.isfinite(frame).all():
            raise NumericError(f"frame {at} holds NaN or infinity; check the node or the run that made it")


def _percent(before: float, after: float) -> str:
    return f" ({100 * (after / before - 1):+.0f}%)" if before > 0 else ""
