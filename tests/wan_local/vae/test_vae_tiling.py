"""Tiles: how they lie, how they are blended, and that they give what whole frames give away from their edges."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from wan_local.config import VAEConfig
from wan_local.errors import Cancelled
from wan_local.progress import Progress
from wan_local.vae import Tiling, WanVAE, decode_tiled, encode_tiled

CELL = 8


class FlatVAE:
    """Decodes each latent frame of a tile to the value of the tile's first cell, so that weights can be seen."""

    output_stride = CELL

    def __init__(self) -> None:
        self.seen: list[tuple[int, int]] = []  # size of each tile
        self.frames = 0

    def decode_stream(self, latents: Tensor) -> Iterator[Tensor]:
        batch, _, frames, height, width = latents.shape
        self.seen.append((height, width))
        for at in range(frames):
            self.frames += 1
            value = latents[:, :1, at : at + 1, :1, :1]
            yield value.expand(batch, 3, 1 if at == 0 else 4, height * CELL, width * CELL)


def columns(width: int, frames: int = 1) -> Tensor:
    """Latents whose value is the number of their column."""
    return torch.arange(width).float().expand(1, 16, frames, 4, width)


def decoded(vae: FlatVAE, latents: Tensor, tiling: Tiling) -> Tensor:
    return torch.cat(list(decode_tiled(vae, latents, tiling)), dim=2)  # type: ignore[arg-type]


@pytest.mark.parametrize("side", [1, 15, 16, 17, 24, 31, 40, 90])
def test_tile_weights_add_up_to_one(side: int) -> None:
    out = decoded(FlatVAE(), torch.ones(1, 16, 1, side, 16), Tiling(tile=16, overlap=5))
    assert torch.allclose(out, torch.ones_like(out), atol=1e-6)


@pytest.mark.parametrize(("side", "tile", "overlap"), [(40, 16, 4), (90, 32, 8), (23, 16, 8), (17, 16, 0)])
def test_neighbours_share_the_overlap_that_was_asked_for(side: int, tile: int, overlap: int) -> None:
    spans = Tiling(tile=tile, overlap=overlap).spans(side)
    assert spans[0][0] == 0
    assert spans[-1][1] == side
    assert all(end - start == tile for start, end in spans)
    shared = [before[1] - after[0] for before, after in zip(spans, spans[1:], strict=False)]
    assert all(cells == overlap for cells in shared[:-1])
    assert shared[-1] >= overlap  # the last tile is moved back to end with the side


def test_one_tile_fades_into_the_next_over_the_whole_overlap() -> None:
    """Tiles of columns 0 to 7 and 4 to 11: value 0, then a straight line over cells 4 to 7, then 4."""
    out = decoded(FlatVAE(), columns(12), Tiling(tile=8, overlap=4))[0, 0, 0, 0]
    rising = (torch.arange(4 * CELL) + 0.5) / (4 * CELL)
    expected = 4.0 * torch.cat([torch.zeros(4 * CELL), rising, torch.ones(4 * CELL)])
    assert torch.allclose(out, expected, atol=1e-6)


def test_latents_are_blended_the_same_way() -> None:
    class Numbered:
        config = VAEConfig()

        def encode_stream(self, video: Tensor) -> Iterator[Tensor]:
            value = video[:, :1, :1, :1, :1]
            yield value.expand(1, 16, 1, video.shape[3] // CELL, video.shape[4] // CELL)

    pixels = columns(12).repeat_interleave(CELL, 3).repeat_interleave(CELL, 4)[:, :3]
    out = encode_tiled(Numbered(), pixels, Tiling(tile=8, overlap=4))[0, 0, 0, 0]  # type: ignore[arg-type]
    assert out.tolist() == [0, 0, 0, 0, 0.5, 1.5, 2.5, 3.5, 4, 4, 4, 4]


def test_both_axes_are_blended() -> None:
    vae, rows = FlatVAE(), torch.arange(12.0)[:, None].expand(1, 16, 1, 12, 12)
    tiling = Tiling(tile=8, overlap=4)
    out = decoded(vae, rows, tiling)[0, 0, 0]
    assert vae.seen == [(8, 8)] * 4
    assert torch.allclose(out[:, 0], decoded(FlatVAE(), columns(12), tiling)[0, 0, 0, 0])
    assert torch.allclose(out, out[:, :1].expand_as(out))


def test_frames_come_while_the_last_tile_is_decoded() -> None:
    vae = FlatVAE()
    chunks = decode_tiled(vae, columns(12, frames=5), Tiling(tile=8, overlap=4))  # type: ignore[arg-type]
    shapes, counts = [], []
    for chunk in chunks:
        shapes.append(chunk.shape[2])
        counts.append(vae.frames)
    assert shapes == [1, 4, 4, 4, 4]
    assert counts == [6, 7, 8, 9, 10]  # the first tile's five, then one more each


def test_every_latent_frame_of_every_tile_is_told_and_may_stop() -> None:
    told: list[tuple[int, int]] = []

    def tell(progress: Progress) -> None:
        told.append((progress.done, progress.total))
        if len(told) == stop:
            raise Cancelled

    stop, latents, tiling = 0, columns(12, frames=3), Tiling(tile=8, overlap=4)
    list(decode_tiled(FlatVAE(), latents, tiling, tell))  # type: ignore[arg-type]
    assert told == [(done, 6) for done in range(1, 7)]
    told.clear()
    stop, vae = 2, FlatVAE()
    with pytest.raises(Cancelled):
        list(decode_tiled(vae, latents, tiling, tell))  # type: ignore[arg-type]
    assert vae.frames == 2


@torch.no_grad()
def test_tiled_is_close_away_from_seams() -> None:
    torch.manual_seed(5)
    vae = WanVAE(VAEConfig(dim=4)).eval()
    for coder in (vae.encoder, vae.decoder):
        coder.middle[1].proj.weight.zero_()  # the attention sees the whole frame: no tile can equal that
        coder.middle[1].proj.bias.zero_()
    tiling = Tiling(tile=16, overlap=8)
    latents = torch.randn(1, 16, 2, 24, 24)
    whole, tiled = vae.decode(latents), torch.cat(list(decode_tiled(vae, latents, tiling)), dim=2)
    assert tiled.shape == whole.shape
    inner = [slice(0, 4 * 8), slice(20 * 8, 24 * 8)]  # rows of one tile only, far from its neighbour
    error = max((tiled - whole)[..., rows, : 4 * 8].abs().max().item() for rows in inner)
    video = torch.rand(1, 3, 5, 24 * 8, 24 * 8) * 2 - 1
    z, z_tiled = vae.encode(video), encode_tiled(vae, video, tiling)
    encode_error = ((z - z_tiled)[..., :2, :2].abs().max() / z.abs().max()).item()
    print(f"tiled away from seams: decode {error:.2e}, encode {encode_error:.2e}")
    assert error <= 1e-2
    assert encode_error <= 1e-2
