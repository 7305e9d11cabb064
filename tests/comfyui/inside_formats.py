"""Weights in layouts of ComfyUI's own, held to what ComfyUI makes of them; inside its interpreter."""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from inside_checks import apart, check, lib, refusal
from inside_model import inputs, lora_file, resident, small_transformer


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
        vae = nodes.loading.load_vae(Path(path), "fp32")
    latents = torch.randn(1, 16, 3, 5, 6)
    channels = theirs.decode(latents)  # [1, 12, 9, 40, 48]
    images = torch.nn.functional.pixel_shuffle(channels[0].movedim(1, 0), 2)  # [9, 3, 80, 96]
    expected = images.movedim(1, -1).add(1).div(2).clamp(0, 1)[None]
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

    coder, latents = nodes.sockets.vae.autoencoder(CoreVAE()), torch.zeros(1, 16, 3, 4, 6)
    images = nodes.sockets.vae.decode_images(coder, latents, lambda progress: None)
    assert images.shape == (1, 9, 8, 12, 3)
    assert torch.allclose(images[0, 0, :2, :2, 0] * 12, torch.tensor([[0.0, 1.0], [2.0, 3.0]]), atol=1e-5)
    (video,) = coder.decode_stream(latents)
    assert video.shape == (1, 3, 9, 8, 12)


@check
def a_vae_of_another_family_is_refused_before_anything_is_encoded(nodes: Any) -> None:
    for channels, axes, kind in ((48, 3, "videos of 48"), (16, 2, "images of 16"), (4, 2, "images of 4")):
        other = SimpleNamespace(latent_channels=channels, latent_dim=axes)
        said = refusal(
            lambda other=other: nodes.conditioning.WanFLF2VConditioning.execute(
                [], [], other, 64, 48, 9, "crop", torch_image(), clip_vision="not asked"
            )
        )
        assert f"this VAE is for {kind} latent channels" in said, said
        assert said.endswith("load wan_2.1_vae.safetensors")


def torch_image() -> Any:
    import torch

    return torch.rand(1, 48, 64, 3)


FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    "int8": ("int8_tensorwise", {}),
    "int8 by rows": ("int8_tensorwise", {"per_channel": True}),
    "int8 turned": ("int8_tensorwise", {"per_channel": True, "convrot": True, "convrot_groupsize": 256}),
    "mxfp8": ("mxfp8", {}),
    "nvfp4": ("nvfp4", {}),
}
PREFIX = "model.diffusion_model."


def comfy_file(nodes: Any, folder: str, kind: str) -> str | None:
    """A transformer as ComfyUI's own mixed precision layers save it; None where this ComfyUI saves no such format."""
    import comfy.ops
    import torch
    from comfy import quant_ops
    from safetensors.torch import save_file

    name, how = FORMATS[kind]
    if name not in quant_ops.QUANT_ALGOS:
        return None
    layout = quant_ops.QUANT_ALGOS[name]["comfy_tensor_layout"]
    model, tensors = small_transformer(nodes, ffn_dim=512), {}
    operations = comfy.ops.mixed_precision_ops({}, torch.float32)
    for path, value in model.state_dict().items():
        layer = path.removesuffix(".weight")
        if value.ndim != 2 or not path.startswith("blocks.") or not path.endswith(".weight"):
            tensors[PREFIX + path] = value
            continue
        theirs = operations.Linear(value.shape[1], value.shape[0], bias=False)
        packed = quant_ops.QuantizedTensor.from_float(value, layout, **how)
        theirs.weight = torch.nn.Parameter(packed, requires_grad=False)
        theirs.quant_format, theirs.layout_type = name, layout
        saved = theirs.state_dict(prefix=f"{PREFIX}{layer}.")
        if isinstance(saved[PREFIX + path], quant_ops.QuantizedTensor):
            return None  # older ones save no plain tensors
        tensors |= saved
    place = str(Path(folder, f"{name}.safetensors"))
    save_file({name: value.contiguous() for name, value in tensors.items()}, place)
    return place


@check
def files_of_comfyuis_own_formats_give_the_weights_that_it_loads(nodes: Any) -> str:
    import comfy.sd
    import torch

    told = []
    for kind in FORMATS:
        with tempfile.TemporaryDirectory() as folder, torch.no_grad():
            path = comfy_file(nodes, folder, kind)
            if path is None:
                told.append(f"{kind}: not in this ComfyUI")
                continue
            core = comfy.sd.load_diffusion_model(path, model_options={"dtype": torch.float32}).model.diffusion_model
            ours = lib(nodes, "weights").load_transformer(path, operations=nodes.host.Operations)
            ours.compute_dtype = torch.float32
            seen = 0
            for name, layer in ours.named_modules():
                if getattr(layer, "packing", None) is None:
                    continue
                theirs = core.get_submodule(name).weight
                values = layer.packing.dequantize(layer.weight, layer.scale, torch.float32)
                assert torch.equal(values, theirs.dequantize().float()), (kind, name)
                seen += 1
            assert seen == 3 * 12, seen
            dequantized = lib(nodes, "weights").load_transformer(path, dtype=torch.float32, unpack=True)
            expected, whole = dequantized(*inputs()), ours(*inputs())
            assert apart(whole, expected) < 1e-5, (kind, apart(whole, expected))
            patcher = resident(nodes, ours, sum(p.nbytes for p in ours.parameters()) // 2)
            assert ours.model_lowvram
            assert torch.equal(ours(*inputs()), whole), kind
            told.append(
                f"{kind}: {patcher.model_size() / sum(p.nbytes for p in dequantized.parameters()):.2f} of float32"
            )
    return "; ".join(told)


@check
def a_lora_on_a_file_of_comfyuis_own_formats_equals_a_merged_one(nodes: Any) -> str:
    import torch

    grid = lib(nodes, "shapes").Grid(frames=9, height=48, width=64)
    worst = 0.0
    for kind in FORMATS:
        with tempfile.TemporaryDirectory() as folder, torch.no_grad():
            path = comfy_file(nodes, folder, kind)
            if path is None:
                continue
            packed = lib(nodes, "weights").load_transformer(path, operations=nodes.host.Operations)
            packed.compute_dtype = torch.float32
            merged = lib(nodes, "weights").load_transformer(path, dtype=torch.float32, unpack=True)
            lora = lora_file(nodes, merged, folder, 3)
            lib(nodes, "lora").merge(merged, [(lora, 0.6)])
            model = nodes.sockets.model.WanModel(packed).with_lora(lora, 0.6)
            worst = max(worst, apart(model.load(grid)(*inputs()), merged(*inputs())))
    assert worst <= 1e-4, worst
    return f"relative difference to the merged model: {worst:.1e}"
