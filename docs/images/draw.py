"""Draws the icon and the banner of the registry, and the GIF of the first page, from the clip of ``make demo``.

``python -m docs.images.draw``, after ``make demo``.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from wan_local import video

HERE = Path(__file__).parent
OUTPUT = HERE.parents[1] / "output"
PAPER, INK, SOFT = (24, 24, 24), (235, 235, 235), (150, 170, 180)
ICON = 256  # pixels; the registry shows at most 400
BANNER = (1260, 540)  # 21:9
TILE, GAP = 220, 20
SHOWN = (0, 8, 16, 24, 32)  # frames


def tile(frame: np.ndarray, side: int) -> Image.Image:
    """A frame ``[H, W, 3]`` uint8, enlarged smoothly."""
    return Image.fromarray(frame).resize((side, side), Image.Resampling.BICUBIC)


def icon(frames: np.ndarray) -> Image.Image:
    """The first frame above the diagonal, the last below it."""
    mask = Image.new("L", (ICON, ICON))
    ImageDraw.Draw(mask).polygon([(0, 0), (ICON, 0), (0, ICON)], fill=255)
    whole = Image.composite(tile(frames[0], ICON), tile(frames[-1], ICON), mask)
    ImageDraw.Draw(whole).line([(ICON, 0), (0, ICON)], fill=PAPER, width=6)
    return whole


def banner(frames: np.ndarray) -> Image.Image:
    whole = Image.new("RGB", BANNER, PAPER)
    pen = ImageDraw.Draw(whole)
    left = (BANNER[0] - len(SHOWN) * (TILE + GAP) + GAP) // 2
    pen.text((left, 56), "WanFLF2V", fill=INK, font=ImageFont.load_default(84))
    pen.text((left, 164), "from a first image to a last one", fill=SOFT, font=ImageFont.load_default(34))
    for place, index in enumerate(SHOWN):
        at = (left + place * (TILE + GAP), 250)
        whole.paste(tile(frames[index], TILE), at)
        if index in (SHOWN[0], SHOWN[-1]):
            pen.rectangle([at[0] - 5, at[1] - 5, at[0] + TILE + 4, at[1] + TILE + 4], outline=(120, 200, 255), width=5)
    return whole


def main() -> None:
    frames = video.to_uint8(video.read(OUTPUT / "demo.mp4")[0]).numpy()  # [F, H, W, 3]
    icon(frames).save(HERE / "icon.png", optimize=True)
    banner(frames).save(HERE / "banner.png", optimize=True)
    shutil.copy(OUTPUT / "demo.gif", HERE / "demo.gif")


if __name__ == "__main__":
    main()
