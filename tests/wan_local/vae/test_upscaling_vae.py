"""Decoders that were trained to give frames of twice the size: 12 channels, a square of four pixels each."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKLWan
from safetensors.torch import save_file

from wan_local import video
from wan_local.cli import main
from wan_local.config import VAEConfig
from wan_local.errors import WrongModel
from wan_local.generate import Pipeline
from wan_local.memory import plan, stored
from wan_local.parts import Parts
from wan_local.shapes import Grid
from wan_local.vae import Tiling, WanVAE, decode_tiled
from wan_local.weights import inspect, load_vae

sys.path.append(str(Path(__file__).parent))  # the oracle lies beside this file
from vae_names import to_official

NANO = Path(__file__).parents[3] / "weights" / "nano"
DEMO = NANO.parents[1] / "demo"


@pytest.fixture(scope="module")
def theirs() -> AutoencoderKLWan:
    """diffusers' class, which gives the 12 channels as they are."""
    torch.manual_seed(11)
    model = AutoencoderKLWan(base_dim=8, out_channels=12).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():  # sharp enough that a wrong place or scale shows
            parameter.copy_(torch.rand_like(parameter) + 0.5 if "gamma" in name else parameter * 2)
            if parameter.ndim == 1:
                parameter.copy_(torch.randn_like(parameter) * 0.2)
    return model


@pytest.fixture(scope="module")
def file(theirs: AutoencoderKLWan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("vae") / "Wan2.1_VAE_upscale2x.safetensors"
    save_file({name: value.contiguous() for name, value in to_official(theirs.state_dict()).items()}, path)
    return path


@pytest.fixture(scope="module")
def doubling(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled VAE with every pixel of its last layer four times: each becomes a square of its colour."""
    state = dict(load_vae(NANO).state_dict())
    for name in ("decoder.head.2.weight", "decoder.head.2.bias"):
        state[name] = state[name].repeat_interleave(4, dim=0)
    path = tmp_path_factory.mktemp("vae") / "doubling.safetensors"
    save_file({name: value.contiguous() for name, value in state.items()}, path)
    return path


def relative_error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


@torch.no_grad()
def test_frames_are_the_squares_of_the_channels(theirs: AutoencoderKLWan, file: Path) -> None:
    ours, latents = load_vae(file), torch.randn(2, 16, 3, 4, 6)
    channels = theirs.decode(latents).sample  # [B, 12, F, 8 h, 8 w]
    expected = torch.zeros(2, 3, 9, 64, 96)
    for colour in range(3):
        for down in range(2):
            for right in range(2):
                expected[:, colour, :, down::2, right::2] = channels[:, 4 * colour + 2 * down + right]
    frames = ours.decode(latents)
    assert frames.shape == expected.shape
    error = relative_error(frames, expected)
    print(f"upscaling decode: relative error {error:.2e}")
    assert error <= 1e-5
    assert torch.equal(torch.cat(list(ours.decode_stream(latents)), dim=2), frames)
    assert relative_error(ours.decode_whole(latents).clamp(-1, 1), frames) <= 1e-5
    clip = torch.rand(1, 3, 5, 32, 48) * 2 - 1
    assert relative_error(ours.encode(clip), theirs.encode(clip).latent_dist.mean) <= 1e-5


@torch.no_grad()
def test_tiles_lie_where_they_belong() -> None:
    torch.manual_seed(5)
    vae = WanVAE(VAEConfig(dim=4, upscale=2)).eval()
    vae.decoder.middle[1].proj.weight.zero_()  # the attention sees the whole frame: no tile can equal that
    vae.decoder.middle[1].proj.bias.zero_()
    latents = torch.randn(1, 16, 2, 24, 40)
    tiles = decode_tiled(vae, latents, Tiling(tile=16, overlap=8))
    whole, tiled = vae.decode(latents), torch.cat(list(tiles), dim=2)
    assert tiled.shape == whole.shape == (1, 3, 5, 384, 640)
    for rows in (slice(0, 4 * 16), slice(20 * 16, 24 * 16)):  # of one tile only, far from its neighbour
        assert (tiled - whole)[..., rows, : 4 * 16].abs().max() <= 1e-2


def test_inspect_says_it_and_a_folder_of_diffusers_is_read_too(
    theirs: AutoencoderKLWan, file: Path, tmp_path: Path
) -> None:
    report = inspect(file)
    assert (report.missing, report.unexpected, report.misshapen, report.error) == ((), (), (), "")
    assert "decodes at 2 times the size" in str(report)
    assert "decodes at" not in str(inspect(NANO / "vae"))
    theirs.save_pretrained(tmp_path / "vae")
    assert load_vae(tmp_path).config.upscale == 2


@pytest.mark.parametrize("channels", [2, 10, 16])
def test_channels_that_are_no_square_of_pixels_are_refused(file: Path, tmp_path: Path, channels: int) -> None:
    state = dict(load_vae(file).state_dict())
    for name in ("decoder.head.2.weight", "decoder.head.2.bias"):
        state[name] = torch.cat([state[name]] * 2)[:channels].contiguous()
    path = tmp_path / "odd.safetensors"
    save_file({name: value.contiguous() for name, value in state.items()}, path)
    with pytest.raises(WrongModel, match=f"its decoder gives {channels} channels"):
        load_vae(path)


def test_a_clip_has_its_pictures_at_twice_the_size(
    doubling: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    usual, double = tmp_path / "usual.mp4", tmp_path / "double.mp4"
    arguments = [
        "generate", "--model", str(NANO), "--first", str(DEMO / "nano_first.png"), "--last",
        str(DEMO / "nano_last.png"), "--prompt", "a disc", "--width", "64", "--height", "48", "--length", "5",
        "--steps", "2", "--guidance", "1", "--seed", "7", "--device", "cpu", "--no-cache", "--output",
    ]  # fmt: skip
    sheet = tmp_path / "sheet.png"
    assert main([*arguments, str(usual)]) == 0
    assert main([*arguments, str(double), "--vae", str(doubling), "--sheet", str(sheet)]) == 0
    told = capsys.readouterr().out
    assert "5 frames, 64x48" in told
    assert "5 frames, 128x96" in told
    assert told.count("ends: first") == 2
    assert sheet.is_file()
    small, large = video.read(usual)[0], video.read(double)[0]
    assert large.shape == (5, 96, 128, 3)
    averages = large.unflatten(1, (48, 2)).unflatten(3, (64, 2)).mean(dim=(2, 4))
    assert (averages - small).abs().mean() < 0.02  # two encodes lie between


def test_kept_latents_decode_to_twice_the_size(doubling: Path, tmp_path: Path) -> None:
    kept = tmp_path / "a.latents.safetensors"
    save_file({"latents": torch.randn(1, 16, 2, 6, 8)}, kept)
    assert main(["decode", str(kept), "--model", str(doubling), "--output", str(tmp_path / "a.mp4")]) == 0
    assert video.read(tmp_path / "a.mp4")[0].shape == (5, 96, 128, 3)


def test_the_plan_counts_the_larger_frames() -> None:
    config, weights, usual = stored.read(NANO, torch.float32)  # type: ignore[misc]
    grid = Grid(frames=9, height=64, width=96)
    before, after = (
        plan(config, weights, vae=vae, grids=[grid], settings=["none"])[0].settings[0].stages[-1]
        for vae in (usual, replace(usual, upscale=2))
    )
    pixels = 3 * 9 * 64 * 96 * 4
    assert after.host - before.host == 3 * pixels  # four times as many
    assert after.device > before.device


def test_the_library_gives_frames_of_the_decoded_size(doubling: Path) -> None:
    pipeline = Pipeline.from_pretrained(NANO, dtype=torch.float32, device="cpu", parts=Parts(vae=doubling))
    first, last = DEMO / "nano_first.png", DEMO / "nano_last.png"
    frames = pipeline(first, last, "a disc", width=32, height=32, length=5, steps=1, guidance=1, seed=3)
    assert frames.shape == (5, 64, 64, 3)
    assert torch.equal(frames[:, ::2, ::2], frames[:, 1::2, 1::2])
