"""A clip between its two images, enlarged, as an animated GIF: a README and a chat window show no mp4."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw

from wan_local import images, video
from wan_local.output import replacing

TILE, GAP, LABEL = 192, 12, 16  # pixels
PAPER, INK = (24, 24, 24), (220, 220, 220)
HOLD = 700  # milliseconds that the first and the last frame stay


def write(clip: Path, first: Path, last: Path, path: Path) -> None:
    """Write the GIF: the first image, the clip and the last image side by side.

    Args:
        clip: a video that :mod:`wan_local.video` reads.
        first: the image it starts at.
        last: the image it ends at.
        path: to write to; a file there is replaced.

    Raises:
        WanError: a file can't be read or written.
    """
    frames, fps = video.read(clip)  # [F, H, W, 3]
    height, width = frames.shape[1:3]
    scale = TILE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))

    def tile(pixels: images.Tensor) -> Image.Image:
        return Image.fromarray(video.to_uint8(pixels).numpy()).resize(size, Image.Resampling.BICUBIC)

    paper = Image.new("RGB", (GAP + 3 * (size[0] + GAP), GAP + LABEL + size[1] + GAP), PAPER)
    given = [tile(images.fit_image(images.read(each), width, height).permute(1, 2, 0)) for each in (first, last)]
    pen = ImageDraw.Draw(paper)
    places = [GAP + each * (size[0] + GAP) for each in range(3)]
    for left, label in zip(places, ("first image", "the clip", "last image"), strict=True):
        pen.text((left, GAP), label, fill=INK)
    for left, image in zip(places[::2], given, strict=True):
        paper.paste(image, (left, GAP + LABEL))

    pages = []
    for frame in frames:
        pages.append(paper.copy())
        pages[-1].paste(tile(frame), (places[1], GAP + LABEL))
    # One palette for all, so that what stands still does not flicker.
    whole = Image.new("RGB", (paper.width, paper.height * len(pages)))
    for index, page in enumerate(pages):
        whole.paste(page, (0, index * paper.height))
    palette = whole.quantize(255, method=Image.Quantize.MEDIANCUT)
    drawn = [page.quantize(palette=palette, dither=Image.Dither.NONE) for page in pages]
    times = [HOLD, *[round(1000 / fps)] * (len(pages) - 2), HOLD]
    with replacing(path) as temporary:
        drawn[0].save(
            temporary, format="GIF", save_all=True, append_images=drawn[1:], duration=times[: len(drawn)], loop=0
        )
