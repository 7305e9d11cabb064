"""The bundled nano model: what the demo, the workflow and a newcomer rely on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel

from training.draw import draw, random_clips
from training.latent_statistics import set_statistics
from training.report import DEMO_CLIP, FRAMES, LARGE, SEED, SETTINGS, SIZE, prompt_distance
from wan_local import ends, images
from wan_local.config import WAN_LATENTS_MEAN, WAN_LATENTS_STD, VAEConfig
from wan_local.generate import Pipeline
from wan_local.vae import WanVAE
from wan_local.weights import load_transformer, load_vae

pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parents[2]
NANO = ROOT / "weights" / "nano"
ENDS_PSNR = 24.0


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return Pipeline.from_pretrained(NANO, device="cpu")


def test_it_is_small():
    size = sum(file.stat().st_size for file in NANO.rglob("*") if file.is_file())
    print(f"weights/nano: {size / 1e6:.1f} MB")
    assert size <= 25_000_000


@torch.no_grad()
def test_diffusers_reads_the_same_folder_and_computes_the_same():
    theirs = WanTransformer3DModel.from_pretrained(NANO / "transformer", torch_dtype=torch.float32).eval()
    ours = load_transformer(NANO, dtype=torch.float32)
    latents = torch.randn(1, 36, 5, 8, 8)
    text, image = torch.randn(1, 512, ours.config.text_dim), torch.randn(1, 100, ours.config.image_dim)
    timestep = torch.tensor([1.0])  # 512 rows of text, since diffusers takes the last 512 rows of all for the text
    expected = theirs(latents, timestep, text, image.view(2, 50, -1), return_dict=False)[0]
    error = ((ours(latents, timestep, text, image) - expected).abs().max() / expected.abs().max()).item()
    vae = AutoencoderKLWan.from_pretrained(NANO / "vae", torch_dtype=torch.float32).eval()
    video = torch.rand(1, 3, 5, 64, 64) * 2 - 1
    mean = vae.encode(video).latent_dist.mean
    vae_error = ((load_vae(NANO).encode(video) - mean).abs().max() / mean.abs().max()).item()
    print(f"nano against diffusers: transformer {error:.2e}, VAE {vae_error:.2e}")
    assert max(error, vae_error) <= 1e-5


@torch.no_grad()
def test_its_latents_have_the_official_statistics():
    vae = load_vae(NANO)
    assert vae.config.latents_mean == WAN_LATENTS_MEAN
    assert vae.config.latents_std == WAN_LATENTS_STD
    clips = (draw(random_clips(SEED + 1 + batch, 12), FRAMES, SIZE) for batch in range(4))
    latents = torch.cat([vae.normalise(vae.encode_moments(clip)[0]) for clip in clips])
    mean, std = latents.mean((0, 2, 3, 4)), latents.std((0, 2, 3, 4))
    print(f"channel means within {mean.abs().max():.2f} of 0, deviations {std.min():.2f} to {std.max():.2f}")
    assert mean.abs().max() < 0.35
    assert ((std > 0.85) & (std < 1.2)).all()


@torch.no_grad()
def test_its_latents_are_pictures_through_its_own_map():
    vae = load_vae(NANO)
    video = draw(random_clips(SEED, 4), FRAMES, SIZE)
    *factors, added = torch.tensor(vae.config.latent_rgb)
    latents = vae.normalise(vae.encode_moments(video)[0]).movedim(1, -1)  # [B, T, h, w, 16]
    shown = (latents @ torch.stack(factors) + added).movedim(-1, 1)
    cells = torch.nn.functional.avg_pool3d(video[:, :, 1:], (4, 8, 8))  # [B, 3, T - 1, h, w]
    error, spread = (shown[:, :, 1:] - cells).square().mean(), cells.var(dim=(0, 2, 3, 4)).mean()
    print(f"previews: {-10 * torch.log10(error / 4):.1f} dB; {error / spread:.2f} of the variance is left")
    assert error < 0.5 * spread


@torch.no_grad()
def test_setting_the_statistics_changes_no_picture():
    torch.manual_seed(0)
    vae = WanVAE(VAEConfig(dim=4))
    video = torch.rand(1, 3, 5, 16, 16)
    before = vae.decode_whole(vae.encode(video))
    raw = vae.encode(video)
    mean, std = torch.linspace(-1, 1, 16).double(), torch.linspace(0.5, 2, 16).double()
    set_statistics(vae, mean, std)
    after = vae.decode_whole(vae.encode(video))
    assert torch.allclose(before, after, atol=1e-4)
    gain = torch.tensor(WAN_LATENTS_STD) / std.float()
    shift = torch.tensor(WAN_LATENTS_MEAN) - mean.float() * gain
    expected = raw * gain.view(1, -1, 1, 1, 1) + shift.view(1, -1, 1, 1, 1)
    assert torch.allclose(vae.encode(video), expected, atol=1e-4)


def test_the_demo_is_a_held_out_clip_and_the_ends_are_exact(pipeline):
    clip = random_clips(SEED, DEMO_CLIP + 1)[DEMO_CLIP]
    prompt = (ROOT / "demo" / "nano_prompt.txt").read_text().strip()
    assert prompt == clip.caption
    workflow = json.loads((ROOT / "workflows" / "api" / "wan_flf2v_nano_model.json").read_text())
    assert prompt in [node["inputs"].get("prompt") for node in workflow.values()]
    first, last = (images.read(ROOT / "demo" / f"nano_{name}.png") for name in ("first", "last"))
    frames, side = LARGE["frames"], LARGE["size"]
    frames = pipeline(first, last, prompt, width=side, height=side, length=frames, seed=1, **SETTINGS)
    report = ends.report(frames, {0: first, len(frames) - 1: last})
    print(report)
    assert report.first.psnr >= ENDS_PSNR
    assert report.last.psnr >= ENDS_PSNR


def test_the_prompt_decides_the_path(pipeline):
    """The same two frames, "over the top" and "under the bottom": the paths part by a good share of the frame."""
    distance = prompt_distance(pipeline)
    print(f"paths of two prompts: {distance} of {SIZE} pixels apart")
    assert distance > SIZE / 4


@pytest.mark.parametrize("name", ["held_out", "held_out_large"])
def test_held_out_figures_are_those_of_the_page(name: str):
    """``training/README.md`` shows what the files hold."""
    figures = json.loads((ROOT / "training" / f"{name}.json").read_text())["figures"]
    page = (ROOT / "training" / "README.md").read_text()
    assert figures["clips"] >= 64
    for name in ("mean_first", "mean_last", "mean_middle", "mean_fade_middle", "mean_centroid", "mean_fade_centroid"):
        assert f"{figures[name]:.2f}" in page, name
    for name in ("share_middle_beats_fade", "share_centroid_beats_fade"):
        assert f"{100 * figures[name]:.0f} %" in page, name
