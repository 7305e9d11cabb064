"""What every approximation saves and costs: ``python -m benchmarks.speed_prices`` prints what ``docs/speed.md`` shows.

Each clip is made in full and then under every choice, with the same seed: on held-out clips of the bundled models, and
on a model of random weights with Wan's head width, all under the published schedule of 50 steps at shift 16 (the pair
at its own 12). Sparse attention is for such heads and for long clips, so its clips are the random model's, of more
tokens, and its least number of tokens is lowered. Seconds are of the processor, on one thread, while sampling.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from training.draw import random_clips
from training.held_out import true_clip
from training.report import FRAMES, PAIR_SHIFT, SEED, SETTINGS, SIZE
from training.report import pair as nano_pair
from wan_local.approximations import NOTHING, PRESETS, Approximations, named
from wan_local.approximations.run import ApproximatedRun
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
SPARSE: Mapping[str, Settings] = {
    named(each): replace(PLAIN, approximations=each) for each in (Approximations(sparse=tau) for tau in (0.5, 1.0, 1.3))
}
LONG = {"width": 128, "height": 128, "length": 81}  # 1,344 tokens: 21 blocks of keys


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """Clips under one list of choices.

    Attributes:
        title: of its table.
        pipeline: that makes them.
        clips: how many.
        choices: name to settings.
        own: what its settings have in place of those of the choices.
    """

    title: str
    pipeline: Pipeline
    clips: int
    choices: Mapping[str, Settings] = field(default_factory=lambda: CHOICES)
    own: Mapping[str, Any] = field(default_factory=dict)

    def of(self, settings: Settings) -> Settings:
        return replace(settings, **self.own)


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
    parser.add_argument("--clips", type=int, default=32, help="of the bundled model, and of the random one")
    parser.add_argument("--pair-clips", type=int, default=8, help="of the bundled pair")
    parser.add_argument("--sparse-clips", type=int, default=3, help="of sparse attention, 1,344 tokens each")
    args = parser.parse_args()
    torch.set_num_threads(1)
    nano, pair = Pipeline.from_pretrained(ROOT / "weights" / "nano"), nano_pair(ROOT / "weights")[0]
    wide = of_random_weights(nano)
    for series in (
        Series(title="The bundled model", pipeline=nano, clips=args.clips),
        Series(title="The bundled pair", pipeline=pair, clips=args.pair_clips, own={"shift": PAIR_SHIFT}),
        Series(title="Random weights, heads of 128", pipeline=wide, clips=args.clips),
        Series(title="Random weights, sparse", pipeline=wide, clips=args.sparse_clips, own=LONG, choices=SPARSE),
    ):
        rows: dict[str, list[Price]] = {}
        if series.clips:
            _maker(series, 0, _images(series, 0))(replace(UNGUIDED, steps=1))  # what is done once does not count
        for index in range(series.clips):
            for name, price in prices_of(series, index):
                rows.setdefault(name, []).append(price)
            print("\n".join(["", f"{series.title}: after {index + 1}", "", *table(rows)]), flush=True)


def prices_of(series: Series, index: int) -> Iterator[tuple[str, Price]]:
    """Every choice on one clip."""
    images = _images(series, index)
    make = _maker(series, index, images)
    scales = {settings.guidance for settings in series.choices.values()}
    exact = {each.guidance: make(each) for each in (PLAIN, UNGUIDED) if each is PLAIN or each.guidance in scales}
    for name, settings in {"exact": PLAIN, **series.choices}.items():
        made = make(settings) if settings != PLAIN else exact[PLAIN.guidance]
        yield name, _price(made, exact[settings.guidance], images)


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


def _images(series: Series, index: int) -> dict[int, Tensor]:
    """Frame to image ``[H, W, 3]`` 0..1."""
    settings = series.of(PLAIN)
    clip, _ = true_clip(random_clips(SEED, index + 1)[index], settings.length, settings.width)
    return {frame: clip[frame] for frame in (0, -1)}


def _maker(series: Series, index: int, images: Mapping[int, Tensor]) -> Callable[[Settings], Made]:
    caption, pipeline = random_clips(SEED, index + 1)[index].caption, series.pipeline
    first, last = (image.permute(2, 0, 1) for image in images.values())

    def make(settings: Settings) -> Made:
        began: list[float] = []

        def heard(progress: Progress) -> None:
            if progress.stage == "sample" and not began:
                began.append(time.process_time())

        # Sparse attention for clips of any length; of the other choices none asks.
        with mock.patch.dict(ApproximatedRun.__init__.__kwdefaults__, min_tokens=0):
            sampled = pipeline.generate(first, last, caption, replace(series.of(settings), seed=index), heard)
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
