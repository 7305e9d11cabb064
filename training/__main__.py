"""``python -m training``: everything that makes ``weights/nano``, from nothing, in one resumable command.

    draw clips -> VAE -> latent statistics -> image encoder -> data set -> transformer and text encoder,
    with the VAE's decoder going on beside them -> export -> held-out figures

Each part keeps its checkpoint in ``training/runs``; a command that was killed goes on where it was. The two last
trainings use the same latents and do not touch each other: ``--only decoder`` and ``--only transformer`` run them in
two processes at once.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor
from transformers import CLIPVisionModel

from wan_local.settings import published_negative_prompt
from wan_local.shapes import Grid
from wan_local.vae import WanVAE

from .dataset import load_shards, make_shards
from .export import export
from .latent_statistics import measure, set_statistics
from .tokenizer import write_tokenizer
from .train_decoder import train_decoder
from .train_image_encoder import train_image_encoder
from .train_transformer import TextToVelocity, train_transformer
from .train_vae import CONFIG, train_vae

ROOT = Path(__file__).resolve().parents[1]
FRAMES, SIZE = 17, 64
VAE_STEPS = (2250, 1000, 600, 1500, 4000)
IMAGE_ENCODER_STEPS = 1000
SHARDS = (range(24), range(24, 52))  # of 250 clips, for the transformer's two curves
TRANSFORMER_STEPS = (5000, 4000)
DECODER_STEPS = 1200
GRID = Grid(frames=FRAMES, height=SIZE, width=SIZE)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=Path, default=ROOT / "training" / "runs", help="checkpoints and logs")
    parser.add_argument("--output", type=Path, default=ROOT / "weights" / "nano")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--only", choices=("vae", "image", "data", "decoder", "transformer", "export"), help="stop after"
    )
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    runs: Path = args.runs
    vae = fixed_vae(runs)
    if args.only == "vae":
        return
    image_encoder = train_image_encoder(runs / "image", IMAGE_ENCODER_STEPS)
    if args.only == "image":
        return
    data = [dataset(runs, vae, image_encoder, shards) for shards in SHARDS]
    if args.only == "data":
        return
    if args.only != "transformer":
        train_decoder(runs / "decoder", vae, DECODER_STEPS, data[-1], SHARDS[-1], GRID)
    if args.only == "decoder":
        return
    model = text_to_velocity(runs, data)
    if args.only == "transformer":
        return
    export(
        args.output, transformer=model.transformer, vae=vae, text_encoder=model.text_encoder,
        image_encoder=image_encoder, tokenizer=runs / "tokenizer",
    )  # fmt: skip


def fixed_vae(runs: Path) -> WanVAE:
    """The VAE after its own training, with the official latent statistics; computed once and kept."""
    kept = runs / "vae.pt"
    if not kept.exists():
        vae = train_vae(runs / "vae", VAE_STEPS)
        set_statistics(vae, *measure(vae, FRAMES, SIZE))
        torch.save(vae.state_dict(), kept)
    vae = WanVAE(CONFIG)
    vae.load_state_dict(torch.load(kept, weights_only=True))
    return vae


def dataset(runs: Path, vae: WanVAE, image_encoder: CLIPVisionModel, shards: range) -> dict[str, Tensor]:
    if not (runs / "tokenizer").exists():
        write_tokenizer(runs / "tokenizer")
    return load_shards(make_shards(runs / "data", vae, image_encoder, runs / "tokenizer", GRID, shards), GRID)


def text_to_velocity(runs: Path, data: list[dict[str, Tensor]]) -> TextToVelocity:
    curves = list(zip(TRANSFORMER_STEPS, data, strict=True))
    return train_transformer(runs / "transformer", curves, runs / "tokenizer", published_negative_prompt())


if __name__ == "__main__":
    main()
