"""Clips one behind the other as one: from image to image, and back to the first for a loop.

Each is sampled by itself and its latents are kept in a file named by everything that decided them, so that a chain that
was stopped goes on where it was, and of one that was changed only what changed is made again. A model that continues
clips (Wan2.2) is given the last frames of the clip before, and motion goes on over the join; others begin at its last
image.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from . import kept
from .approximations import named
from .encoders.cache import identity
from .ends import Repaired
from .errors import InputError, OutputError, WanError
from .frames import collect
from .generate import Pipeline, Sampled
from .joins import Joins
from .keyframes import FIRST, LAST, Keyframe, place_of, placed
from .notices import tell
from .progress import OnProgress, Progress, ignore
from .settings import Settings
from .shapes import TEMPORAL_STRIDE, Grid
from .words import counted

CARRIED = TEMPORAL_STRIDE + 1  # frames that a clip takes over from the one before: whole latent frames with the first
SEPARATOR = "---"
SAME = 1 / 255  # mean difference of two images that are one and the same to a viewer
FORMAT = "2"  # of a kept segment; another number makes all before it unknown

Repairs = Callable[[Tensor, Mapping[int, Keyframe]], Repaired]
"""Frames ``[F, H, W, 3]`` 0..1 and the images that were given for some of them, to frames that are nearer to them."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Segment:
    """One clip of a chain.

    Attributes:
        prompt: what happens in it.
        keyframes: its images. Without one at its first frame it begins where the clip before ends.
    """

    prompt: str
    keyframes: tuple[Keyframe, ...] = ()


def segments_of(images: Sequence[Tensor], prompts: Sequence[str], *, loop: bool = False) -> list[Segment]:
    """A clip from each image to the next, and from the last to the first for a loop.

    Args:
        images: each ``[3, H0, W0]`` 0..1, of any size.
        prompts: one for all, or one for each clip.
        loop: whether the chain ends where it began.

    Raises:
        InputError: fewer than two images, or another number of prompts.
    """
    if len(images) < 2:
        given = "1 image is" if images else "no image is"
        raise InputError(f"{given} given and a chain goes from image to image; give 2 or more")
    pairs = list(zip(images, [*images[1:], images[0]] if loop else images[1:], strict=False))
    if len(prompts) not in (1, len(pairs)):
        raise InputError(
            f"{counted(len(prompts), 'prompt')} are given for {counted(len(pairs), 'clip')}; give one for all, or one "
            f"for each, with a line {SEPARATOR} between them"
        )
    if any(not prompt.strip() for prompt in prompts) and len(prompts) > 1:
        raise InputError(f"a prompt between two lines {SEPARATOR} is empty; write one, or take a line out")
    texts = list(prompts) * (len(pairs) if len(prompts) == 1 else 1)
    return [
        Segment(
            prompt=text, keyframes=(_at(FIRST, first, f"image {index}"), _at(LAST, last, f"the one behind {index}"))
        )
        for index, (text, (first, last)) in enumerate(zip(texts, pairs, strict=True), 1)
    ]


def split_prompts(text: str) -> list[str]:
    """Prompts that are separated by lines of ``---``."""
    prompts = [""]
    for line in text.splitlines():
        if line.strip() == SEPARATOR:
            prompts.append("")
        else:
            prompts[-1] += line + "\n"
    return [prompt.strip() for prompt in prompts]


def tell_of_stills(segments: Sequence[Segment], length: int) -> None:
    """Say which clips begin and end at the same image: they hardly move."""
    for number, segment in enumerate(segments, 1):
        at = {place_of(each, length): each.images for each in segment.keyframes}
        first, last = at.get(0), at.get(length - 1)
        if first is not None and last is not None and first.shape == last.shape:
            if (first[-1] - last[-1]).abs().mean() < SAME:
                tell(
                    f"clip {number} of {len(segments)} begins and ends at the same image, and such clips stand nearly "
                    "still; put another image between them"
                )


class Chain:
    """Segments that are made, kept, and joined.

    Args:
        pipeline: what makes them.
        segments: in order; a loop's last one ends where the first begins.
        settings: of all of them, with a seed; the size follows the first image where it says none.
        loop: whether the end goes over into the beginning.
        folder: where latents are kept; None keeps none.
        model: names the weights and everything else that decides the result beside the arguments here, see
            :func:`wan_local.encoders.cache.identity`.

    Raises:
        InputError: no segments, an image that has no place, or a length with no room for what is carried.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        segments: Sequence[Segment],
        settings: Settings,
        *,
        loop: bool = False,
        folder: Path | None = None,
        model: str = "",
    ) -> None:
        if not segments:
            raise InputError("the chain has no clip; give 2 images or more")
        self.pipeline, self.segments, self.loop = pipeline, tuple(segments), loop
        self._folder, self._model = folder, model
        self.carried = CARRIED if pipeline.transformer.config.is_expert and len(segments) > 1 else 0
        shortest = 2 * self.carried + TEMPORAL_STRIDE - 1
        if settings.length < shortest:
            raise InputError(
                f"clips of {counted(settings.length, 'frame')} have no room for the {self.carried} frames that each "
                f"takes over from the one before; use {shortest} or more"
            )
        given = placed(segments[0].keyframes, settings.length)
        for segment in segments[1:]:
            if segment.keyframes:
                placed(segment.keyframes, settings.length)
        height, width = next(iter(given.values())).images.shape[-2:]  # of the first in time, as of a single clip
        self.grid: Grid = settings.grid(width, height)
        self.settings = replace(settings.with_seed(), width=self.grid.width, height=self.grid.height)
        self._keys = self._named()

    @property
    def overlap(self) -> int:
        """Frames that two neighbours have in common; they are shown once."""
        return max(1, self.carried)

    @property
    def frames(self) -> int:
        """Frames of the whole."""
        count = len(self.segments)
        shared = count if self.loop else count - 1
        return count * self.grid.frames - shared * self.overlap

    def given(self) -> dict[int, Keyframe]:
        """The images of the whole by frame; of a loop the first is behind the last frame, too."""
        step, found = self.grid.frames - self.overlap, dict[int, Keyframe]()
        for index, segment in enumerate(self.segments):
            for each in segment.keyframes:
                place = place_of(each, self.grid.frames)
                taken_over = index > 0 and self.carried > place
                if not taken_over and index * step + place < self.frames:
                    found.setdefault(index * step + place, each)
        if self.loop and 0 in found:
            found[self.frames] = found[0]
        return found

    def repaired(self, chunks: Iterator[Tensor], repair: Repairs) -> tuple[Iterator[Tensor], str]:
        """The frames as ``repair`` leaves them, and what is to be said of them.

        Of a loop it is given the first frame once more behind the last, which goes over into it: so what is done to the
        frames beside an image is done on both sides of it.
        """
        frames = collect(chunks, self.frames)
        done = repair(torch.cat([frames, frames[:1]]) if self.loop else frames, self.given())
        return iter([done.frames[: self.frames]]), str(done)

    def joins(self) -> Joins:
        """What looks at the joins while :meth:`decode_stream` passes through it."""
        step = self.grid.frames - self.overlap
        return Joins([self.grid.frames + index * step for index in range(len(self.segments) - 1)], closed=self.loop)

    def made_before(self) -> int:
        """How many of the segments are kept already."""
        return sum(self._read(index) is not None for index in range(len(self.segments)))

    def sample(self, on_progress: OnProgress = ignore) -> list[Sampled]:
        """Make every segment that is not kept.

        Raises:
            WanError: as :meth:`wan_local.generate.Pipeline.generate`; what was made before it is kept.
        """
        done: list[Sampled] = []
        for index, segment in enumerate(self.segments):
            latents = self._read(index)
            if latents is None:
                latents = self._made(index, segment, done, on_progress)
            about = named(self.settings.approximations)
            done.append(Sampled(latents=latents, settings=self.settings, grid=self.grid, approximated=about))
        return done

    def decode_stream(self, sampled: Sequence[Sampled], on_progress: OnProgress = ignore) -> Iterator[Tensor]:
        """The frames of all segments, each once, as they come: ``[n, H, W, 3]`` 0..1."""
        last = len(sampled) - 1
        for index, one in enumerate(sampled):
            begin = self.overlap if index else 0
            end = self.grid.frames - (self.overlap if self.loop and index == last else 0)
            yield from _cut(self.pipeline.decode_stream(one, self._part(index, on_progress)), begin, end)

    def _made(self, index: int, segment: Segment, done: Sequence[Sampled], on_progress: OnProgress) -> Tensor:
        part = self._part(index, on_progress)
        try:
            keyframes = self._keyframes(index, segment, done, part)
            latents = self.pipeline.generate(
                None, None, segment.prompt, self.settings, part, keyframes=keyframes
            ).latents
        except BaseException:
            if len(self.segments) > 1 and self._folder is not None:
                made = self.made_before()  # not the number of it: a full disk keeps fewer
                goes_on = f"goes on, with {counted(made, 'clip')} kept" if made else "begins again, with no clip kept"
                tell(f"clip {index + 1} of {len(self.segments)} was not made; the same chain {goes_on}")
            raise
        self._keep(index, latents)
        return latents

    def _keyframes(
        self, index: int, segment: Segment, done: Sequence[Sampled], on_progress: OnProgress
    ) -> list[Keyframe]:
        """Its images, with what it takes over from the clip before and, closing a loop, from the first."""
        own = {place_of(each, self.grid.frames): each for each in segment.keyframes}
        last = self.grid.frames - 1
        if index and (self.carried or 0 not in own):
            tail = self._frames_of(done[-1], last + 1 - self.overlap, last + 1, on_progress)
            own[0] = Keyframe(images=tail, frame=0, name="the end of the clip before")
        if self.loop and index == len(self.segments) - 1 and index and (self.carried or last not in own):
            head = self._frames_of(done[0], 0, self.overlap, on_progress)
            own[last] = Keyframe(images=head, frame=-self.overlap, name="the beginning of the first clip")
        return list(own.values())

    def _frames_of(self, sampled: Sampled, begin: int, end: int, on_progress: OnProgress) -> Tensor:
        """Some decoded frames, ``[n, 3, H, W]`` on the CPU, which are images of the next clip."""

        def told(progress: Progress) -> None:
            on_progress(replace(progress, stage="encode images"))

        chunks = _cut(self.pipeline.decode_stream(sampled, told), begin, end)
        return torch.cat([chunk.movedim(-1, 1).float().cpu() for chunk in chunks])

    def _named(self) -> list[str]:
        """A name for each segment, of all that decides its latents."""
        names, settings = list[str](), asdict(replace(self.settings, longer=self.settings.longer.acting))
        for index, segment in enumerate(self.segments):
            images = [
                (place_of(each, self.grid.frames), each.strength, each.low_noise_strength, each.whole_group,
                 hashlib.sha256(each.images.contiguous().numpy().tobytes()).hexdigest(), tuple(each.images.shape))
                for each in segment.keyframes
            ]  # fmt: skip
            begins = any(place == 0 for place, *_ in images)
            before = names[-1] if index and (self.carried or not begins) else ""
            ends = any(place == self.grid.frames - 1 for place, *_ in images)
            closing = self.loop and index and index == len(self.segments) - 1
            closes = names[0] if closing and (self.carried or not ends) else ""
            choices = (FORMAT, self._model, settings, segment.prompt, images, before, closes)
            names.append(identity([], *choices))
        return names

    def _path(self, index: int) -> Path | None:
        return None if self._folder is None else self._folder / f"{self._keys[index]}{kept.SUFFIX}"

    def _read(self, index: int) -> Tensor | None:
        path = self._path(index)
        try:
            latents = None if path is None or not path.is_file() else kept.read(path)
        except WanError:  # cut short or changed: as good as none
            return None
        shape = (1, self.pipeline.transformer.config.out_dim, *self.grid.latent_shape)
        return latents if latents is not None and latents.shape == shape else None

    def _keep(self, index: int, latents: Tensor) -> None:
        path = self._path(index)
        try:
            if path is not None:
                kept.write(path, latents, {"seed": str(self.settings.seed)})
        except OutputError as error:  # hours may have gone into it, and it is still here
            tell(f"clip {index + 1} could not be kept ({error}); the chain goes on, but a stop would lose it")

    def _part(self, index: int, on_progress: OnProgress) -> OnProgress:
        def told(progress: Progress) -> None:
            on_progress(replace(progress, part=index + 1, parts=len(self.segments)))

        return told


def _at(frame: int, image: Tensor, name: str) -> Keyframe:
    return Keyframe(images=image[None], frame=frame, name=name)


def _cut(chunks: Iterator[Tensor], begin: int, end: int) -> Iterator[Tensor]:
    """Frames ``begin <= i < end`` of chunks ``[n, H, W, 3]``; what lies behind is not asked for."""
    at = 0
    for chunk in chunks:
        part = chunk[max(0, begin - at) : max(0, end - at)]
        at += len(chunk)
        if len(part):
            yield part
        if at >= end:
            return


def returning(prompt: str, keyframes: Sequence[Keyframe], length: int) -> Segment:
    """The clip that closes one of ``length`` frames to a loop: from its last image to its first. Where it has none, it
    begins where that clip ended, and ends where it began."""
    by_place = {place_of(each, length): each for each in keyframes}
    first, last = by_place.get(0), by_place.get(length - 1)
    own = [replace(each, frame=frame) for each, frame in ((last, FIRST), (first, LAST)) if each is not None]
    return Segment(prompt=prompt, keyframes=tuple(own))
