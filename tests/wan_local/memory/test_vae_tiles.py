"""A VAE that does not fit works in tiles, the largest that do; one that fits never does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from wan_local.config import WAN_VAE
from wan_local.errors import InputError
from wan_local.generate import Pipeline
from wan_local.memory import check_tiling, fitting
from wan_local.memory.activations import RESERVE, Shape, vae_decode_work
from wan_local.memory.tiles import TILES, of_side, ways
from wan_local.shapes import Grid
from wan_local.vae import Tiling

NANO = Path(__file__).parents[3] / "weights" / "nano"
DEMO = NANO.parents[1] / "demo"
LARGE = Grid(frames=81, height=720, width=1280).latent_shape


def work(shape: Shape) -> int:
    return vae_decode_work(WAN_VAE, shape)


def sides(found: tuple[Tiling | None, ...]) -> list[int]:
    """Sides of tiles in cells; 0 for whole frames."""
    return [way.tile if way else 0 for way in found]


def test_the_first_way_is_the_largest_that_fits_and_smaller_ones_follow() -> None:
    whole = work(LARGE) + RESERVE
    assert sides(ways("auto", LARGE, None, work)) == [0, *TILES]
    assert sides(ways("auto", LARGE, whole, work)) == [0, *TILES]
    assert sides(ways("auto", LARGE, whole - 1, work)) == list(TILES)
    for free in (12e9, 8e9, 5e9):
        first, *smaller = ways("auto", LARGE, int(free), work)
        assert first is not None
        need = work((21, min(first.tile, 90), first.tile)) + RESERVE
        print(f"720p, {free / 1e9:.0f} GB free: tiles of {first.tile * 8} pixels, {need / 1e9:.1f} GB")
        assert need <= free
        assert sides(tuple(smaller)) == [side for side in TILES if side < first.tile]
    assert sides(ways("auto", LARGE, 0, work)) == [TILES[-1]]


def test_tiles_are_smaller_than_the_frame() -> None:
    assert sides(ways("auto", (3, 40, 50), None, work)) == [0, 48, 32, 16]
    assert sides(ways("auto", (3, 16, 16), 0, work)) == [0]


def test_what_was_asked_for_comes_first() -> None:
    assert ways("off", LARGE, 0, work) == (None,)
    assert sides(ways(384, LARGE, 0, work)) == [48, 32, 16]
    own = Tiling(tile=40, overlap=3)
    assert ways(own, LARGE, None, work) == (own, of_side(32), of_side(16))


def test_neighbours_share_a_quarter() -> None:
    """Without it a seam would be seen at every edge."""
    assert [of_side(side).overlap for side in TILES] == [24, 16, 12, 8, 4]


def test_a_small_card_gets_tiles_and_nearly_the_same_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    images = DEMO / "nano_first.png", DEMO / "nano_last.png"
    how = {"width": 160, "height": 64, "length": 5, "steps": 1, "guidance": 1.0, "seed": 3}
    pipeline = Pipeline.from_pretrained(NANO, device="cpu")
    cut: list[str] = []
    for name in ("encode_tiled", "decode_tiled"):
        real = getattr(fitting, name)
        monkeypatch.setattr(fitting, name, lambda *given, name=name, real=real: cut.append(name) or real(*given))
    whole = pipeline(*images, "a circle", **how)
    assert not cut
    monkeypatch.setattr(fitting, "free_device_bytes", lambda device: RESERVE + 10_000_000)
    tiled = pipeline(*images, "a circle", **how)
    assert cut == ["encode_tiled", "decode_tiled"]
    assert tiled.shape == whole.shape
    psnr = -10 * torch.log10(((tiled - whole) ** 2).mean())
    print(f"tiles / whole frames: {psnr:.1f} dB")
    assert 20 < psnr < 80
    cut.clear()
    off = Pipeline.from_pretrained(NANO, device="cpu", tiling="off")
    assert torch.equal(off(*images, "a circle", **how), whole)
    assert not cut


@pytest.mark.parametrize("value", ["big", "127", 0, -1, 2.5, True, None, ""])
def test_tilings_that_can_not_be(value: object) -> None:
    with pytest.raises(InputError, match="tiling=.* can't be used; use auto, off or the side of a tile"):
        check_tiling(value)
    assert check_tiling("256") == 256
    assert check_tiling("auto") == "auto"
