"""3x3x3 convolutions of many channels on a CPU, by 4/9 of the multiplications.

Winograd's minimal filtering F(2x2, 3x3) over height and width (Lavin and Gray, arXiv:1509.09308): two by two pixels
come from a tile of four by four by 16 products instead of 36. The three taps over time and the channels are one axis
of those products. What it saves goes with channels squared and what it adds (sums of pixels before and behind) with
channels, so narrow layers stay with oneDNN, which has nothing of the kind.

Measured on two cores of a Sapphire Rapids Xeon, by the time of oneDNN's: 0.58 at 384 channels of 60x60, 0.67 at 192 of
120x120, 1.0 at 96. Errors are a third of oneDNN's (7e-7 of the largest value against 2e-6).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from .layout import channels_last
from .onednn import in_plain_float32

FEWEST_CHANNELS = 128  # from which on it was faster
FEWEST_PIXELS = 512  # of all output frames
TILES = 128  # 2x2 pixels of a frame that are worked on at once, so that they stay in the cache
FRAMES = 4  # worked on at once: they share their input


def pays(conv: nn.Module, x: Tensor) -> bool:
    """Whether ``conv`` is such a convolution and ``x``, ``[B, C, T + 2, H, W]``, large enough."""
    return (
        in_plain_float32(conv, x)
        and type(conv) is nn.Conv3d
        and conv.kernel_size == (3, 3, 3)
        and conv.padding == (0, 1, 1)
        and min(conv.in_channels, conv.out_channels) >= FEWEST_CHANNELS
        and (x.shape[2] - 2) * x.shape[3] * x.shape[4] >= FEWEST_PIXELS
    )


def transformed(conv: nn.Module) -> Tensor:
    """The kernels ``[C', C, 3, 3, 3]`` of a convolution as the factors ``[16, 3 * C, C']`` of the products."""
    weight = conv.get_parameter("weight")
    taps = weight.flatten(1).t().contiguous().unflatten(0, weight.shape[1:])  # [C, 3, 3, 3, C']: of time, row, column
    factors = weight.new_empty(4, 4, 3, *taps.shape[::4])
    for row, of_row in zip(factors, _spread(taps, 2), strict=True):
        for factor, of_column in zip(row, _spread(of_row, 2), strict=True):
            factor.copy_(of_column.transpose(0, 1))  # [3, C, C']
    return factors.flatten(2, 3).flatten(0, 1)


def convolve(conv: nn.Conv3d, x: Tensor, factors: Tensor) -> Tensor:
    """``conv(x)``, up to rounding, in channels-last memory.

    Args:
        conv: one that :func:`pays`.
        x: ``[B, C, T + 2, H, W]``.
        factors: :func:`transformed` of it.

    Returns:
        ``[B, C', T, H, W]``.
    """
    frames, height, width = x.shape[2] - 2, *x.shape[3:]
    down, across = -(-height // 2), -(-width // 2)  # tiles
    pixels = x.movedim(1, -1)  # [B, T + 2, H, W, C]
    out = x.new_empty(len(x), frames, down, 2, across, 2, conv.out_channels)
    scratch = _Scratch(x)
    for given, result in zip(pixels, out, strict=True):
        for start in range(0, frames, FRAMES):
            stop = min(start + FRAMES, frames)
            for rows, columns in _blocks(down, across):
                tiles = _tiles(given[start : stop + 2], rows, columns, scratch)
                _products(tiles, factors, conv.bias, result[start:stop, rows, :, columns], scratch)
    whole = out.flatten(4, 5).flatten(2, 3)[:, :, :height, :width]
    return channels_last(whole.movedim(-1, 1))


class _Scratch:
    """Memory that each block writes over again, so that it is still in the cache."""

    def __init__(self, like: Tensor) -> None:
        self._like = like
        self._held: dict[str, Tensor] = {}

    def take(self, name: str, *shape: int) -> Tensor:
        """Uninitialised, the same for each call with that name."""
        size = math.prod(shape)
        held = self._held.get(name)
        if held is None or len(held) < size:
            held = self._held[name] = self._like.new_empty(size)
        return held[:size].view(shape)


def _blocks(down: int, across: int) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of tiles to work on at once; more of them where more threads share the work."""
    most = TILES * max(1, torch.get_num_threads() // 2)
    width = min(across, most)
    height = max(1, most // width)
    for top in range(0, down, height):
        for left in range(0, across, width):
            yield slice(top, min(top + height, down)), slice(left, min(left + width, across))


def _tiles(given: Tensor, rows: slice, columns: slice, scratch: _Scratch) -> Tensor:
    """Pixels ``[F, H, W, C]`` of some tiles, zeros around the image, to the tiles' sums ``[16, tiles, F, C]``."""
    frames, height, width, channels = given.shape
    down, across = rows.stop - rows.start, columns.stop - columns.start
    # A tile begins one pixel before its two and ends one behind them.
    padded = scratch.take("padded", frames, 2 * down + 2, 2 * across + 2, channels)
    top, bottom = 1 - 2 * rows.start, min(2 * rows.stop + 1, height)
    left, right = 1 - 2 * columns.start, min(2 * columns.stop + 1, width)
    first_row, first_column = max(-top, 0), max(-left, 0)
    inside = padded[:, first_row + top : bottom + top, first_column + left : right + left]
    if inside.shape != padded.shape:
        padded.zero_()
    inside.copy_(given[:, first_row:bottom, first_column:right])

    of_rows = scratch.take("rows", 4, frames, down, 2 * across + 2, channels)
    _differences([padded[:, i : i + 2 * down : 2] for i in range(4)], of_rows)
    tiles = scratch.take("tiles", 4, 4, down, across, frames, channels)
    of_columns = of_rows.permute(0, 2, 3, 1, 4)  # [4, down, 2 * across + 2, F, C]
    _differences([of_columns[:, :, i : i + 2 * across : 2] for i in range(4)], tiles.transpose(0, 1))
    return tiles.view(16, down * across, frames, channels)


def _products(tiles: Tensor, factors: Tensor, bias: Tensor | None, out: Tensor, scratch: _Scratch) -> None:
    """Sums ``[16, tiles, T + 2, C]`` times factors ``[16, 3 * C, C']``, summed up to ``out``,
    ``[T, down, 2, across, 2, C']``."""
    _, down, _, across, _, channels = out.shape
    for t, frame in enumerate(out):
        products = scratch.take("products", 16, down * across, channels)
        torch.bmm(tiles[:, :, t : t + 3].flatten(2), factors, out=products)
        of_tiles = products.view(4, 4, down, across, channels)
        if bias is not None:
            of_tiles[1, 1] += bias  # the one product that all four pixels have, with a plus
        of_rows = scratch.take("sums", 2, 4, down, across, channels)
        _sums(of_tiles.unbind(), of_rows)
        _sums(of_rows.unbind(1), frame.permute(3, 1, 0, 2, 4))


def _spread(weight: Tensor, dim: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Three taps to four."""
    first, middle, last = weight.unbind(dim)
    ends, middle = (first + last) / 2, middle / 2
    return first, ends + middle, ends - middle, last


def _differences(pixels: Sequence[Tensor], out: Tensor) -> None:
    """Four pixels in a row to the four sums that are multiplied."""
    a, b, c, d = pixels
    torch.sub(a, c, out=out[0])
    torch.add(b, c, out=out[1])
    torch.sub(c, b, out=out[2])
    torch.sub(b, d, out=out[3])


def _sums(products: Sequence[Tensor], out: Tensor) -> None:
    """Four products to two pixels."""
    a, b, c, d = products
    torch.add(b, c, out=out[0]).add_(a)
    torch.sub(b, c, out=out[1]).sub_(d)
