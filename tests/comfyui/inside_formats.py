"""Weights in layouts of ComfyUI's own, held to what ComfyUI makes of them; inside its interpreter."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from inside_checks import check
from inside_models import apart, lib


def upscaling_vae(nodes: Any, folder: str) -> tuple[str, Any]:
    """A file of a decoder of 12 channels, and ComfyUI's own network with its weights."""
    import comfy.ldm.wan.vae
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(4)
    sizes = {"dim": 8, "z_dim": 16, "dim_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_scales": []}
    theirs = comfy.ldm.wan.vae.WanVAE(**sizes, temperal_downsample=[False, True, True], conv_out_channels=12).eval()
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            parameter.copy_(torch.rand_like(parameter) + 0.5 if "gamma" in name else torch.randn_like(parameter) * 0.1)
    path = str(Path(folder, "upscale2x.safetensors"))
    save_file({name: value.contiguous() for name, value in theirs.state_dict().items()}, path)
    return path, theirs


@check
def an_upscaling_vae_decodes_as_comfyuis_own_network(nodes: Any) -> str:
    import inspect

    import comfy.ldm.wan.vae
    import torch

    if "conv_out_channels" not in inspect.signature(comfy.ldm.wan.vae.WanVAE.__init__).parameters:
        return "this ComfyUI has no such decoder"
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        path, theirs = upscaling_vae(nodes, folder)
        vae = nodes.pipeline.load_vae(Path(path), "fp32")
    latents = torch.randn(1, 16, 3, 5, 6)
    channels = theirs.decode(latents)  # [1, 12, 9, 40, 48]
    pictures = torch.nn.functional.pixel_shuffle(channels[0].movedim(1, 0), 2)  # [9, 3, 80, 96]
    expected = pictures.movedim(1, -1).add(1).div(2).clamp(0, 1)[None]
    whole = vae.decode(latents)
    assert whole.shape == expected.shape == (1, 9, 80, 96, 3)
    difference = apart(whole, expected)
    assert difference <= 1e-5, difference
    assert vae.decode_tiled(latents, tile_x=4, tile_y=4, overlap=2).shape == whole.shape
    assert vae.upscale_ratio[1:] == (16, 16)
    assert vae.downscale_ratio[1:] == (8, 8)
    assert vae.spacial_compression_decode() == 16  # core's tiled decode divides the side of a tile by it
    return f"relative difference {difference:.1e}"


@check
def core_vae_of_twelve_channels_is_put_together_too(nodes: Any) -> None:
    """Core's VAE gives the channels of such a decoder as they are."""
    import torch

    class CoreVAE:
        def decode(self, latents: Any) -> Any:
            return torch.arange(12.0).expand(9, 4, 6, 12) / 12

    images = nodes.wired.WiredVAE(CoreVAE()).decode_images(torch.zeros(1, 16, 3, 4, 6))
    assert images.shape == (1, 9, 8, 12, 3)
    assert torch.equal(images[0, 0, :2, :2, 0] * 12, torch.tensor([[0.0, 1.0], [2.0, 3.0]]))
    (video,) = nodes.wired.WiredVAE(CoreVAE()).decode_stream(torch.zeros(1, 16, 3, 4, 6))
    assert video.shape == (1, 3, 9, 8, 12)
