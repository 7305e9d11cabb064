"""What every approximation saves and costs: ``python -m benchmarks.speed_prices`` prints what ``docs/speed.md`` shows.

Each clip is made in full and then under every choice, with the same seed: on held-out clips of the bundled model, and
on a model of random weights with Wan's head width, both under the published schedule of 50 steps at shift 16. Seconds
are of the processor, on one thread, while sampling.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean

import torch
from torch import Tensor

from training.draw import random_clips
from training.held_out import true_clip
from training.report import FRAMES, SEED, SETTINGS, SIZE
from wan_local.approximations import NOTHING, PRESETS, Approximations, named
from wan_local.denoiser import Denoiser
from wan_local.ends.measure import psnr, ssim
from wan_local.generate import Pipeline
from wan_local.model import WanTransformer
from wan_local.progress import Progress
from wan_local.settings import SHIFT, STEPS, Settings

ROOT = Path(__file__).resolve().parents[1]
PLAIN = Settings(
    width=SIZE, height=SIZE, length=FRAMES, steps=STEPS, shift=SHIFT, guidance=float(SETTINGS["guidance"]),
    negative_prompt="",
)  # fmt: skip
UNGUIDED = replace(PLAIN, guidance=1.0)
WIDE = {"dim": 256, "num_heads": 2, "ffn_dim": 512, "num_layers": 2}  # heads of 128, as Wan's
SINGLE = (
    {"skip": "magcache"},
    {"skip": "easycache"},
    {"guidance_reuse": 2},
    {"guidance_reuse": 4},
    {"guidance_highest": 0.99},
    {"guidance_lowest": 0.65},
    {"cfg_zero": True},
)
CHOICES: Mapping[str, Settings] = {
    **{named(each): replace(PLAIN, approximations=each) for name, each in PRESETS.items() if name != NOTHING},
    **{named(each): replace(PLAIN, approximations=each) for each in (Approximations(**own) for own in SINGLE)},
    "nag 11, at guidance 1": replace(UNGUIDED, approximations=Approximations(nag=11.0)),
    "33 steps and nothing else": replace(PLAIN, steps=33),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Made:
    """A clip ``[F, H, W, 3]`` 0..1, how long sampling took, and what it says of itself."""

    frames: Tensor
    seconds: float
    told: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Price:
    """One choice on one clip: over the seconds of the exact run, and against its frames; the ends against the images,
    in dB, and less than those of the exact run."""

    told: str
    seconds: float
    share: float
    ssim: float
    psnr: float
    ends: float
    lost: float


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speed_prices", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--clips", type=int, default=32)
    parser.add_argument("--wide-clips", type=int, default=3, help="of the model of random weights")
    args = parser.parse_args()
    torch.set_num_threads(1)
    pipeline = Pipeline.from_pretrained(ROOT / "weights" / "nano")
    for title, each, clips in (
        (f"Random weights, heads of 128, {args.wide_clips} clips", of_random_weights(pipeline), args.wide_clips),
        (f"The bundled model, {args.clips} held-out clips", pipeline, args.clips),
    ):
        rows: dict[str, list[Price]] = {}
        if clips:
            _maker(each, 0)(replace(UNGUIDED, steps=1))  # what is done once does not count
        for index in range(clips):
            for name, price in prices_of(each, index):
                rows.setdefault(name, []).append(price)
            print("\n".join(["", f"{title}: after {index + 1}", "", *table(rows)]), flush=True)


def prices_of(pipeline: Pipeline, index: int) -> Iterator[tuple[str, Price]]:
    """Every choice on one clip."""
    make = _maker(pipeline, index)
    exact = {settings: make(settings) for settings in (PLAIN, UNGUIDED)}
    clip, _ = true_clip(random_clips(SEED, index + 1)[index], FRAMES, SIZE)
    images = {frame: clip[frame] for frame in (0, -1)}
    yield "exact", _price(exact[PLAIN], exact[PLAIN], images)
    for name, settings in CHOICES.items():
        plain = exact[UNGUIDED if settings.guidance == 1 else PLAIN]
        yield name, _price(make(settings), plain, images)


def of_random_weights(pipeline: Pipeline) -> Pipeline:
    """The same with another transformer, whose velocities mean nothing."""
    torch.manual_seed(0)
    transformer = WanTransformer(replace(pipeline.transformer.config, **WIDE)).eval()
    for parameter in transformer.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)
    return Pipeline([Denoiser(transformer=transformer)], pipeline.vae, pipeline.text_encoder, pipeline.image_encoder)


def table(rows: Mapping[str, Sequence[Price]]) -> Iterator[str]:
    """Means over the clips, as Markdown."""
    yield "| choice | forwards and steps (of the last clip) | seconds | of exact | SSIM | PSNR dB | ends dB | lost dB |"
    yield "|---|---|---|---|---|---|---|---|"
    for name, prices in rows.items():

        def of(field: str, prices: Sequence[Price] = prices) -> float:
            return mean(getattr(price, field) for price in prices)

        told = prices[-1].told.partition(": ")[2] or "all"
        yield (
            f"| {name} | {told} | {of('seconds'):.1f} | {of('share'):.2f} | {of('ssim'):.4f} | {of('psnr'):.1f} "
            f"| {of('ends'):.2f} | {of('lost'):.2f} |"
        )


def _maker(pipeline: Pipeline, index: int) -> Callable[[Settings], Made]:
    clip = random_clips(SEED, index + 1)[index]
    first, last = (true_clip(clip, FRAMES, SIZE)[0][frame].permute(2, 0, 1) for frame in (0, -1))

    def make(settings: Settings) -> Made:
        began: list[float] = []

        def heard(progress: Progress) -> None:
            if progress.stage == "sample" and not began:
                began.append(time.process_time())

        sampled = pipeline.generate(first, last, clip.caption, replace(settings, seed=index), heard)
        seconds = time.process_time() - began[0]
        return Made(frames=pipeline.decode(sampled), seconds=seconds, told=sampled.approximated)

    return make


def _price(made: Made, exact: Made, images: Mapping[int, Tensor]) -> Price:
    ends, exact_ends = (mean(psnr(each.frames[at], image) for at, image in images.items()) for each in (made, exact))
    pairs = list(zip(made.frames.movedim(-1, 1), exact.frames.movedim(-1, 1), strict=True))  # [3, H, W] each
    return Price(
        told=made.told,
        seconds=made.seconds,
        share=made.seconds / exact.seconds,
        ssim=mean(ssim(*pair) for pair in pairs),
        psnr=min(100.0, psnr(made.frames, exact.frames)),
        ends=ends,
        lost=exact_ends - ends,
    )


if __name__ == "__main__":
    main()
