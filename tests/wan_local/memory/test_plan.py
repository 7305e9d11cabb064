"""The memory plan against what is counted while our own code runs, and against what files and models really hold."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.tiny import write_pipeline
from wan_local import weights as weight_files
from wan_local.attention import Sparse
from wan_local.config import WAN_FLF2V_14B, WAN_VAE, TransformerConfig, VAEConfig
from wan_local.longer import Longer
from wan_local.memory import Weights, activations, plan, stored
from wan_local.memory.activations import (
    RESERVE,
    clip_bytes,
    dequantized_bytes,
    sparse_work,
    transformer_work,
    vae_decode_work,
    vae_encode_work,
)
from wan_local.memory.live import LiveBytes
from wan_local.memory.plan import choose_offloaded, everything_fits, resident_bytes, sampling_work, usual_settings
from wan_local.memory.storage import size_of, tensors_of
from wan_local.model import WanTransformer
from wan_local.sampling import Cond, cond_velocity
from wan_local.shapes import Grid
from wan_local.vae import WanVAE

pytestmark = pytest.mark.long

MID = TransformerConfig(dim=512, ffn_dim=1408, num_heads=4, num_layers=2, text_dim=64, image_dim=64, image_tokens=20,
                        text_len=16)  # fmt: skip
WIDE = replace(MID, ffn_dim=3072)
NARROW = replace(MID, ffn_dim=512, image_dim=0, image_tokens=0)
SMALL = Grid(frames=17, height=256, width=320)
USUAL = [Grid(frames=81, height=480, width=832), Grid(frames=81, height=720, width=1280)]


# -- counting -----------------------------------------------------------------------------------------------------


def test_live_bytes_are_counted() -> None:
    before = torch.zeros(1000)
    with LiveBytes() as count:
        a = before * 2  # 4000 bytes
        b = a[:10]  # a view: none
        assert count.live == 4000
        c = torch.cat([a, a])  # 8000
        assert count.live == count.peak == 12000
        del a
        assert count.live == 12000  # the view holds it
        del b
        assert count.live == 8000
        del c
        before.add_(1)
    assert count.live == 0
    assert count.peak == 12000
    assert "cat" in count.at


# -- what calculating takes ---------------------------------------------------------------------------------------


def counted(model: WanTransformer, grid: Grid, device: str, **options: object) -> int:
    """Peak of one forward, and what the sampler around it holds."""
    config = model.config
    latents = torch.zeros(1, config.in_dim, *grid.latent_shape, device=device)
    text = torch.zeros(1, config.text_len, config.text_dim, device=device)
    rows = config.image_tokens and torch.zeros(1, config.image_tokens, config.image_dim, device=device)
    with torch.no_grad(), LiveBytes() as count:
        model(latents, torch.tensor([500.0], device=device), text, rows if config.image_dim else None, **options)
    return count.peak + 10 * 16 * 4 * grid.latent_frames * grid.latent_height * grid.latent_width


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("config", [MID, WIDE, NARROW], ids=["mid", "wide", "narrow"])
def test_activations_of_the_transformer_within_a_twentieth(config: TransformerConfig, dtype: torch.dtype) -> None:
    """Of a model that really calculates, on a CPU; deeper than the one that is counted."""
    config = replace(config, num_layers=3)
    model = WanTransformer(config).to(dtype).requires_grad_(False).eval()
    grid = Grid(frames=9, height=128, width=160)
    measured = counted(model, grid, "cpu")
    assert transformer_work(config, grid, dtype.itemsize) == pytest.approx(measured, rel=0.05)


def test_a_clip_in_windows_takes_the_work_of_one_within_a_tenth() -> None:
    """And all its latents."""
    config, grid = replace(MID, num_layers=3), Grid(frames=49, height=128, width=160)
    longer = Longer(way="windows", window=17, overlap=4)
    model = WanTransformer(config).requires_grad_(False).eval()
    condition, noise = torch.zeros(1, 20, *grid.latent_shape), torch.zeros(1, 16, *grid.latent_shape)
    text = torch.zeros(1, config.text_len, config.text_dim)
    image = torch.zeros(1, config.image_tokens, config.image_dim)
    cond = Cond(condition=condition, text=text, image=image).in_windows(longer.seen, longer.shared, config)
    with torch.no_grad(), LiveBytes() as count:
        cond_velocity(model, cond)(noise, 500.0)
    beside = 8 * noise.nbytes  # of the ten latents around the transformer two are counted above: the fused velocity's
    planned = transformer_work(config, longer.grid(grid), 4)
    assert planned == pytest.approx(count.peak + beside, rel=0.1)
    assert planned < 0.6 * transformer_work(config, grid, 4)


released = pytest.mark.skipif(
    not hasattr(torch.ops.aten, "_fused_rms_norm"),
    reason="the figures are a newer torch's: this one's norms and convolutions hold other copies, counted above too",
)
# GB of one forward of the released model at batch 1, worked out from its sizes: the tokens in float32, four tensors of
# them in the dtype (queries, keys, values, and what they are made of or give), the table of turns, the sampler's.
RELEASED = {(480, 2): 2.12, (720, 2): 4.9, (480, 4): 3.5, (720, 4): 8.0}


@released
@pytest.mark.parametrize(("height", "itemsize"), RELEASED)
def test_activations_of_the_released_model_within_a_twentieth(height: int, itemsize: int) -> None:
    grid = USUAL[0] if height == 480 else USUAL[1]
    work = transformer_work(WAN_FLF2V_14B, grid, itemsize)
    print(f"14B, {height}p, {itemsize} bytes: {work / 1e9:.2f} GB")
    assert work / 1e9 == pytest.approx(RELEASED[height, itemsize], rel=0.05)


def test_counting_sees_the_same_in_inference_mode() -> None:
    """ComfyUI runs nodes in it; torch then hides what an operation is made of."""
    expected = transformer_work(MID, SMALL, 2), vae_decode_work(VAEConfig(dim=8), SMALL.latent_shape)
    activations._forward.cache_clear()
    activations._vae_cell.cache_clear()
    with torch.inference_mode():
        found = transformer_work(MID, SMALL, 2), vae_decode_work(VAEConfig(dim=8), SMALL.latent_shape)
    assert found == expected


def test_weights_that_are_cast_for_a_call_are_counted() -> None:
    model = WanTransformer(MID)
    assert dequantized_bytes(model, torch.float32) == 0
    assert dequantized_bytes(model, torch.bfloat16) == MID.dim * MID.ffn_dim * 2
    assert transformer_work(MID, SMALL, 2, 77) - transformer_work(MID, SMALL, 2) == 77


def test_what_sparse_attention_takes_comes_on_top(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its kernel works where a forward takes most, and moving the tokens takes no more than there is."""

    class Kernel:
        def __init__(self, *_: object) -> None: ...

        def __call__(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            out = torch.empty_like(q)
            del k, v
            torch.empty(3 * q.numel(), dtype=torch.int8, device=q.device)
            return out

    monkeypatch.setattr("wan_local.model.transformer.SparseAttention", Kernel)
    config, dtype = WAN_FLF2V_14B, torch.bfloat16
    with torch.device("meta"):
        model = WanTransformer(replace(config, num_layers=2), attend=lambda q, k, v: torch.empty_like(q))
    model = model.to(dtype).requires_grad_(False)
    grid = Grid(frames=81, height=720, width=1280)
    measured = counted(model, grid, "meta", sparse=Sparse(tau=1.0, given=(0, 20)))
    planned = transformer_work(config, grid, dtype.itemsize) + sparse_work(config, grid, 1.0)
    assert planned == pytest.approx(measured, rel=0.01)
    assert sparse_work(config, grid, 0.0) == sparse_work(config, Grid(frames=81, height=240, width=416), 1.0) == 0


def test_compiled_blocks_hold_their_tokens_twice() -> None:
    weights = Weights(blocks=(100, 100), rest=10, itemsize=2)
    plain, compiled = (sampling_work(MID, replace(weights, compiled=on), SMALL) for on in (False, True))
    assert compiled - plain == SMALL.tokens * MID.dim * 4
    assert choose_offloaded(MID, weights, SMALL, 210 + plain + RESERVE) == 0
    assert choose_offloaded(MID, replace(weights, compiled=True), SMALL, 210 + plain + RESERVE) > 0


@pytest.mark.parametrize("size", [(48, 64), (96, 32)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_activations_of_the_vae_within_a_twentieth(size: tuple[int, int], dtype: torch.dtype) -> None:
    config = VAEConfig(dim=4)
    grid = Grid(frames=13, height=size[0], width=size[1])
    vae = WanVAE(config).to(dtype).requires_grad_(False)
    latents = torch.zeros(1, 16, *grid.latent_shape, dtype=dtype)
    with torch.no_grad(), LiveBytes() as encoding:
        video = torch.zeros(1, 3, grid.frames, *size, dtype=dtype)
        vae.encode(video)
    with torch.no_grad(), LiveBytes() as decoding:
        for _ in vae.decode_stream(latents):
            pass
    shape, item = grid.latent_shape, dtype.itemsize
    assert vae_encode_work(config, shape, item) == pytest.approx(encoding.peak, rel=0.05)
    assert vae_decode_work(config, shape, item) == pytest.approx(decoding.peak, rel=0.05)
    longer = torch.zeros(1, 16, 7, *shape[1:], dtype=dtype)
    with torch.no_grad(), LiveBytes() as two_at_once:
        for _ in vae.decode_stream(longer, 2):
            pass
    assert vae_decode_work(config, shape, item, 2) == pytest.approx(two_at_once.peak, rel=0.05)


@released
def test_the_released_vae_at_720p() -> None:
    """The figures that GPUs are chosen by: GB of decoding and encoding 1280x720, in float32 and bfloat16."""
    shape = USUAL[1].latent_shape
    for item, decode, encode in ((4, 15.13, 12.49), (2, 7.57, 6.24)):
        assert vae_decode_work(WAN_VAE, shape, item) / 1e9 == pytest.approx(decode, rel=0.01)
        assert vae_encode_work(WAN_VAE, shape, item) / 1e9 == pytest.approx(encode, rel=0.01)


def test_decoding_takes_no_more_for_longer_clips() -> None:
    assert vae_decode_work(WAN_VAE, (3, 60, 104)) == vae_decode_work(WAN_VAE, (21, 60, 104))
    assert clip_bytes(USUAL[1].latent_shape) == 81 * 1280 * 720 * 3 * 4


# -- what weights take ----------------------------------------------------------------------------------------------

EVEN = Weights(blocks=(10,) * 8, rest=5)


def test_weights_on_the_device_by_hand() -> None:
    assert [resident_bytes(EVEN, offloaded) for offloaded in range(9)] == [85, 85, 85, 75, 65, 55, 45, 35, 25]
    uneven = Weights(blocks=(1, 2, 3, 40), rest=100)  # 3 offloaded are the second, third and fourth
    assert resident_bytes(uneven, 3) == 100 + 1 + 2 * 40


def test_stages_by_hand() -> None:
    sizes = Weights(blocks=(10,) * 8, rest=5, text_encoder=1000, image_encoder=300, vae=70)
    grid = SMALL
    (small,) = plan(MID, sizes, grids=[grid], settings=["none", 0, 4], vae=VAEConfig(dim=16))
    none, turns, four = small.settings
    work = transformer_work(MID, grid, 2)
    assert [stage.name for stage in none.stages] == [
        "text encode", "image encode", "VAE encode", "sampling", "VAE decode",
    ]  # fmt: skip
    assert none.stages[3].device == 85 + 1000 + 300 + 70 + work
    assert turns.stages[3].device == 85 + work
    assert four.stages[3].device == 65 + work
    assert none.stages[0].device - turns.stages[0].device == 85 + 300 + 70
    assert turns.stages[4].device == 70 + vae_decode_work(VAEConfig(dim=16), grid.latent_shape, 2)
    assert none.stages[3].host == turns.stages[3].host == 0
    assert four.stages[3].host == 40
    assert four.stages[2].host == four.stages[4].host == 40 + clip_bytes(grid.latent_shape)
    assert four.device == max(stage.device for stage in four.stages)
    (changed,) = plan(MID, replace(sizes, converted_blocks=80, converted=7), grids=[grid], settings=["none", 4])
    assert [setting.stages[3].host for setting in changed.settings] == [0, 87]


def test_usual_settings() -> None:
    assert usual_settings(40) == ("none", 0, 10, 20, 30, 40)
    assert usual_settings(2) == ("none", 0, 1, 2)


def test_choice_is_the_fewest_that_fit() -> None:
    config = replace(MID, num_layers=8)
    work = transformer_work(config, SMALL, 2)
    for free in range(20, 95, 5):
        offloaded = choose_offloaded(config, EVEN, SMALL, work + RESERVE + free)
        assert offloaded == 8 or resident_bytes(EVEN, offloaded) <= free
        assert offloaded == 0 or resident_bytes(EVEN, offloaded - 1) > free
    parts = replace(EVEN, text_encoder=3, vae=4)
    most = max(stage.device for stage in plan(config, parts, grids=[SMALL], settings=["none"])[0].settings[0].stages)
    assert everything_fits(config, parts, WAN_VAE, SMALL, most + RESERVE)
    assert not everything_fits(config, parts, WAN_VAE, SMALL, most + RESERVE - 1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_bytes_of_files_are_those_that_are_loaded(tmp_path: Path, dtype: torch.dtype) -> None:
    folder = write_pipeline(tmp_path / "model", torch.float16)
    found = stored.read(folder, dtype)
    assert found is not None
    config, sizes, vae = found
    model = weight_files.load_transformer(folder, dtype=dtype)
    assert config == model.config
    assert sizes.blocks == tuple(size_of(tensors_of(block)) for block in model.blocks)
    assert sizes.transformer == size_of(tensors_of(model))
    network = weight_files.load_vae(folder)
    assert vae == network.config
    assert sizes.vae == size_of(tensors_of(network))
    text = weight_files.load_text_encoder(folder, dtype=dtype).model
    wide = sum(p.numel() for name, p in text.named_parameters() if name.endswith(".wo.weight"))
    assert sizes.text_encoder == size_of(text.parameters()) - (2 * wide if dtype == torch.float16 else 0)
    image = weight_files.load_image_encoder(folder, dtype=dtype).model
    assert sizes.image_encoder == pytest.approx(size_of(image.parameters()), rel=0.1)
    converted = dtype != torch.float16
    assert sizes.converted_blocks == (sum(sizes.blocks) if converted else 0)
    assert sizes.converted == (sizes.all - sum(sizes.blocks) if converted else sizes.vae)


def test_the_released_models_bytes() -> None:
    """Its files on the hub: 32.8 GB in fp16, 16,397,952,536 bytes in fp8 with everything in it."""
    config, half = stored.released(torch.bfloat16, 2)
    assert half.transformer == pytest.approx(2 * 16_397_952_536, rel=2e-4)
    assert len(half.blocks) == config.num_layers == 40
    _, quarter = stored.released(torch.bfloat16, 1)
    assert sum(quarter.blocks) * 2 == sum(half.blocks)
    with torch.device("meta"):
        assert half.vae == size_of(tensors_of(WanVAE(WAN_VAE)))


def test_nothing_is_planned_without_a_transformer(tmp_path: Path) -> None:
    folder = write_pipeline(tmp_path / "model")
    assert stored.read(folder / "vae", torch.bfloat16) is None


def test_a_transformer_alone_is_planned_with_the_released_parts(tmp_path: Path) -> None:
    folder = write_pipeline(tmp_path / "model")
    found = stored.read(folder / "transformer", torch.bfloat16)
    assert found is not None
    assert found[1].text_encoder == 2 * stored.RELEASED_TEXT_ENCODER
    assert found[1].vae == 4 * stored.RELEASED_VAE
    assert found[2] == WAN_VAE
