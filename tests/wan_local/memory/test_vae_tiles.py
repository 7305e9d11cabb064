"""A VAE that does not fit works in tiles, the largest that do; one that fits never does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from wan_local.config import WAN_VAE
from wan_local.errors import InputError
from wan_local.generate import Pipeline
from wan_local.memory import check_tiling, stages
from wan_local.memory.activations import vae_decode_work, vae_encode_work
from wan_local.memory.plan import RESERVE
from wan_local.memory.tiles import TILES, TiledVAE, tiling_for
from wan_local.shapes import Grid
from wan_local.vae import Tiling

NANO = Path(__file__).parents[3] / "weights" / "nano"
DEMO = NANO.parents[1] / "demo"
LARGE = Grid(frames=81, height=720, width=1280)


@pytest.mark.parametrize("encode", [True, False])
def test_tiles_are_the_largest_that_fit(encode: bool) -> None:
    work = vae_encode_work if encode else vae_decode_work
    whole = work(WAN_VAE, LARGE) + RESERVE
    assert tiling_for(WAN_VAE, LARGE, None, encode=encode) is None
    assert tiling_for(WAN_VAE, LARGE, whole, encode=encode) is None
    smaller = tiling_for(WAN_VAE, LARGE, whole - 1, encode=encode)
    assert smaller is not None
    assert smaller.tile == TILES[0]
    for free in (12e9, 8e9, 5e9):
        found = tiling_for(WAN_VAE, LARGE, int(free), encode=encode)
        assert found is not None
        side = found.tile * 8
        need = work(WAN_VAE, Grid(frames=81, height=min(side, 720), width=min(side, 1280))) + RESERVE
        print(f"encode={encode}, 720p, {free / 1e9:.0f} GB free: tiles of {side} pixels, {need / 1e9:.1f} GB")
        assert need <= free
    assert tiling_for(WAN_VAE, LARGE, 0, encode=encode).tile == TILES[-1]


def test_a_small_card_gets_tiles_and_nearly_the_same_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = DEMO / "nano_first.png", DEMO / "nano_last.png"
    how = {"width": 256, "height": 128, "length": 5, "steps": 1, "guidance": 1.0, "seed": 3}
    pipeline = Pipeline.from_pretrained(NANO, device="cpu")
    whole = pipeline(*pictures, "a circle", **how)
    asked = []
    seen = TiledVAE.__init__

    def remember(self: TiledVAE, vae: torch.nn.Module, tiling: Tiling) -> None:
        asked.append(tiling)
        seen(self, vae, tiling)

    monkeypatch.setattr(TiledVAE, "__init__", remember)
    same = pipeline(*pictures, "a circle", **how)
    assert not asked
    assert torch.equal(same, whole)
    monkeypatch.setattr(stages, "free_device_bytes", lambda device: RESERVE + 50_000_000)
    tiled = pipeline(*pictures, "a circle", **how)
    assert len(asked) == 2  # to encode and to decode
    assert tiled.shape == whole.shape
    psnr = -10 * torch.log10(((tiled - whole) ** 2).mean())
    print(f"tiles of {asked[0].tile * 8} pixels / whole frames: {psnr:.1f} dB")
    assert 20 < psnr < 80
    asked.clear()
    off = Pipeline.from_pretrained(NANO, device="cpu", tiling="off")
    assert torch.equal(off(*pictures, "a circle", **how), whole)
    assert not asked


@pytest.mark.parametrize("value", ["big", "127", 0, -1, 2.5, True, None, ""])
def test_tilings_that_can_not_be(value: object) -> None:
    with pytest.raises(InputError, match="tiling=.* can't be used; use auto, off or the side of a tile"):
        check_tiling(value)
    assert check_tiling("256") == 256
    assert check_tiling("auto") == "auto"
