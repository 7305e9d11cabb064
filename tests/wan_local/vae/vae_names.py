"""Official Wan-VAE parameter names from diffusers' ``AutoencoderKLWan``: written by hand, as an oracle for tests.

It shares nothing with ``wan_local.weights``, so a mistake there can't hide here.
"""

from __future__ import annotations

import torch

LEVELS = 4
ENCODER_BLOCKS = 2
DECODER_BLOCKS = 3


def to_official(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename every parameter of a four-level ``AutoencoderKLWan``; an unknown name is a KeyError."""
    table = _table()
    return {table[name]: value for name, value in state.items()}


def _table() -> dict[str, str]:
    table = {}

    def conv(theirs: str, ours: str) -> None:
        table[f"{theirs}.weight"], table[f"{theirs}.bias"] = f"{ours}.weight", f"{ours}.bias"

    def block(theirs: str, ours: str) -> None:
        table[f"{theirs}.norm1.gamma"] = f"{ours}.residual.0.gamma"
        table[f"{theirs}.norm2.gamma"] = f"{ours}.residual.3.gamma"
        conv(f"{theirs}.conv1", f"{ours}.residual.2")
        conv(f"{theirs}.conv2", f"{ours}.residual.6")
        conv(f"{theirs}.conv_shortcut", f"{ours}.shortcut")

    def resample(theirs: str, ours: str) -> None:
        conv(f"{theirs}.resample.1", f"{ours}.resample.1")
        conv(f"{theirs}.time_conv", f"{ours}.time_conv")

    conv("quant_conv", "conv1")
    conv("post_quant_conv", "conv2")
    for side in ("encoder", "decoder"):
        conv(f"{side}.conv_in", f"{side}.conv1")
        conv(f"{side}.conv_out", f"{side}.head.2")
        table[f"{side}.norm_out.gamma"] = f"{side}.head.0.gamma"
        block(f"{side}.mid_block.resnets.0", f"{side}.middle.0")
        block(f"{side}.mid_block.resnets.1", f"{side}.middle.2")
        table[f"{side}.mid_block.attentions.0.norm.gamma"] = f"{side}.middle.1.norm.gamma"
        conv(f"{side}.mid_block.attentions.0.to_qkv", f"{side}.middle.1.to_qkv")
        conv(f"{side}.mid_block.attentions.0.proj", f"{side}.middle.1.proj")
    for level in range(LEVELS):
        for index in range(ENCODER_BLOCKS):  # diffusers keeps the encoder flat, as the official code does
            place = level * (ENCODER_BLOCKS + 1) + index
            block(f"encoder.down_blocks.{place}", f"encoder.downsamples.{place}")
        last = level * (ENCODER_BLOCKS + 1) + ENCODER_BLOCKS
        resample(f"encoder.down_blocks.{last}", f"encoder.downsamples.{last}")
        for index in range(DECODER_BLOCKS):
            block(f"decoder.up_blocks.{level}.resnets.{index}", f"decoder.upsamples.{level * 4 + index}")
        resample(f"decoder.up_blocks.{level}.upsamplers.0", f"decoder.upsamples.{level * 4 + 3}")
    return table
