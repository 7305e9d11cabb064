"""This GPU against the CPU, on the same weights and inputs."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch.nn import functional

from wan_local.quantised.ggml import FORMATS, GGML
from wan_local.quantised.matmul import float8_linear
from wan_local.shapes import Grid
from wan_local.vae import WanVAE

from .lab import Lab, kind, off_by

FLOAT32, BFLOAT16, FLOAT16 = 1e-5, 2e-2, 1e-2
BLOCKS, VALUES = 2, 1024


def measure(lab: Lab) -> None:
    transformer(lab)
    vae(lab)
    packed(lab)
    products(lab)


def transformer(lab: Lab) -> None:
    """Two blocks, small and at the real width, in three dtypes."""
    tall = Grid(frames=5, height=64, width=96) if lab.toy else Grid(frames=5, height=256, width=256)
    for name, toy, grid in (("small", True, Grid(frames=5, height=64, width=96)), ("real width", lab.toy, tall)):
        there = replace(lab, toy=toy)
        model = there.transformer(torch.float32, layers=BLOCKS)
        here, given = copy.deepcopy(model).cpu(), there.inputs(grid, torch.float32, "cpu")
        expected = here(*given)
        for dtype, allowed in ((torch.float32, FLOAT32), (torch.bfloat16, BFLOAT16), (torch.float16, FLOAT16)):
            rows = [tensor.to(lab.device) for tensor in given]
            got = model.to(dtype)(rows[0], rows[1], rows[2].to(dtype), rows[3].to(dtype))
            error = off_by(got, expected)
            lab.tell(f"forward {kind(dtype)}, {name}", error, expected=f"<= {allowed}", holds=error <= allowed)


def vae(lab: Lab) -> None:
    """Encoding and decoding a short clip, in float32 and in bfloat16."""
    here = WanVAE(replace(lab.vae_config, dim=4 if lab.toy else 32)).requires_grad_(False)
    clip = torch.rand(1, 3, 9, *((32, 32) if lab.toy else (64, 96))) * 2 - 1
    latents = here.encode(clip)
    frames = here.decode(latents)
    there = copy.deepcopy(here).to(lab.device)
    error = off_by(there.encode(clip.to(lab.device)), latents)
    lab.tell("VAE encode float32", error, expected=f"<= {FLOAT32}", holds=error <= FLOAT32)
    lab.tell("VAE decode float32", off_by(there.decode(latents.to(lab.device)), frames))
    half = there.to(torch.bfloat16).decode(latents.to(lab.device, torch.bfloat16))
    lab.tell("VAE decode bfloat16", off_by(half, frames))


def packed(lab: Lab) -> None:
    """Every GGUF type, dequantized there and here from the same bytes."""
    wrong = []
    for name, about in FORMATS.items():
        stored = torch.randint(0, 255, (VALUES * about.size,), dtype=torch.uint8)
        packing = GGML(shape=(64, VALUES // 64 * about.values), kind=name)
        here, there = (packing.dequantize(stored.to(device), None, torch.float32) for device in ("cpu", lab.device))
        if not torch.equal(here.nan_to_num(), there.cpu().nan_to_num()):
            wrong.append(name)
    lab.tell(
        "GGUF types dequantized alike", len(FORMATS) - len(wrong), f"of {len(FORMATS)}", holds=not wrong, wrong=wrong
    )


def products(lab: Lab) -> None:
    """Products in fp8 against float64."""
    if not lab.has_float8:
        lab.tell("products in fp8", "not run", why="this device has no units for them")
        return
    weight, x = lab.noise(512, 768, dtype=torch.float32), lab.noise(300, 768)
    by_row = weight.abs().amax(1, keepdim=True) / 448
    for name, scale in (("one scale", by_row.max().view(1, 1)), ("a scale a row", by_row)):
        stored = (weight / scale).to(torch.float8_e4m3fn)
        got = float8_linear(x, stored, scale, torch.ones(512, device=lab.device).bfloat16())
        error = off_by(got, functional.linear(x.double(), weight.double()) + 1)
        lab.tell(f"product in fp8, {name}", error, expected="<= 0.05", holds=error <= 0.05)
