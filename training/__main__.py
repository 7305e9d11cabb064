"""``python -m training --minutes N``: train the nano model and its pair of experts on, from where they are.

    VAE -> latent statistics, map to colours -> data set -> transformer -> the two experts -> weights

N minutes are one learning-rate curve of every part, one after the other. Checkpoints are in ``training/runs``, or in
``runs`` of another ``--output``: a command that was killed goes on where it was when it is given again, and after a
whole curve it begins another from what the last one reached. Everything begins with the weights in ``weights/``, or
with ``--new`` from nothing. What takes no step and has no checkpoint is not written. With
``--only`` the minutes are for some parts alone; what reads the same latents can train in processes side by side. With
``--sizes`` it sees clips of one size alone: what learns from a transformer learns where that is good.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from transformers import CLIPVisionModel, UMT5EncoderModel

from wan_local.model import WanTransformer
from wan_local.shapes import Grid
from wan_local.vae import WanVAE
from wan_local.weights import load_transformer, load_vae
from wan_local.weights.experts import HIGH, LOW

from . import export
from .batches import Batches
from .dataset import Shards
from .latent_rgb import fit_latent_rgb
from .latent_statistics import measure, set_statistics
from .loop import Curve, has_checkpoint, next_curve, resumed
from .tokenizer import write_tokenizer
from .train_image_encoder import train_image_encoder
from .train_pair import expert_of, train_expert
from .train_transformer import TEXT_CONFIG, attend, new_transformer, train_transformer, velocity_networks
from .train_vae import new_vae, train_vae

ROOT = Path(__file__).resolve().parents[1]
WEIGHTS = ROOT / "weights"
GRIDS = {64: Grid(frames=17, height=64, width=64), 128: Grid(frames=33, height=128, width=128)}
"""Clips by their width."""
SMALL = GRIDS[64]
VAE, DATA, TRANSFORMER = "vae", "data", "transformer"
SHARES = {VAE: 0.3, DATA: 0.15, TRANSFORMER: 0.35, HIGH: 0.07, LOW: 0.13}
"""Of the minutes; how they are divided among the parts that are trained."""
IMAGE_SHARE = 0.1  # of all of them, where the image encoder begins from nothing
NEW = "new"  # a file in the folder of checkpoints that began from nothing
MOST_SHARDS = 400  # of each size


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """How many clips a step takes: 17-frame crops of the VAE, and clips by their width."""

    vae: int
    clips: dict[int, int]


BATCH = {"cpu": Batch(vae=2, clips={64: 32, 128: 6}), "cuda": Batch(vae=32, clips={64: 256, 128: 128})}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, required=True, help="how long, all parts together")
    parser.add_argument("--only", nargs="+", choices=SHARES, default=list(SHARES), help="parts that are trained")
    parser.add_argument("--sizes", type=int, nargs="+", choices=list(GRIDS), default=list(GRIDS), help="width of clips")
    parser.add_argument("--new", action="store_true", help="begin from nothing")
    parser.add_argument("--runs", type=Path, help="checkpoints, clips and logs (training/runs, or OUTPUT/runs)")
    parser.add_argument("--output", type=Path, default=WEIGHTS, help="where nano/ and nano_pair/ go")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=2, help="of a CPU")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    runs = args.runs or (ROOT / "training" / "runs" if args.output.resolve() == WEIGHTS else args.output / "runs")
    if args.new:
        begin_from_nothing(runs, args.output)
    training = Training(runs, args.output, torch.device(args.device), args.sizes, new=args.new)
    training.run(plan(runs, args.only, 60 * args.minutes, sizes=args.sizes, new=args.new))


def begin_from_nothing(runs: Path, output: Path) -> None:
    """Let nothing in that is there already; what began so goes on, after a kill and part by part."""
    if (runs / NEW).exists():
        return
    trained = [*runs.glob("*/state.pt"), *(output / name for name in ("nano", "nano_pair") if (output / name).exists())]
    if trained:
        raise SystemExit(f"{trained[0]} is there, and --new begins from nothing; name another --output or --runs")
    runs.mkdir(parents=True, exist_ok=True)
    (runs / NEW).touch()


def plan(runs: Path, parts: list[str], seconds: float, *, sizes: list[int], new: bool) -> Plan:
    """The one of these parts that was not finished, or a new one."""
    runs.mkdir(parents=True, exist_ok=True)
    path = runs / f"plan-{'-'.join(sorted(parts))}.json"
    how = {"sizes": sorted(sizes), "new": new}
    if not path.exists():
        return Plan(path, seconds, {part: next_curve(runs / part) for part in SHARES if part in parts}, how)
    kept = json.loads(path.read_text())
    began = kept.get("how", how)
    if began != how:
        said = f"--sizes {' '.join(map(str, began['sizes']))}{' --new' if began['new'] else ', without --new'}"
        raise SystemExit(f"{path} is of a command that was not finished, with {said}; give that, or remove the file")
    return Plan(path, kept["seconds"], kept["curves"], how)


class Plan:
    """What one command does, kept until all of it is done.

    Args:
        path: of its file.
        seconds: of all parts together.
        curves: the number of each part's curve.
        how: what else the command says of the training; the same in every command that goes on with this.
    """

    def __init__(self, path: Path, seconds: float, curves: dict[str, int], how: dict[str, object]) -> None:
        self.seconds, self.curves, self._path = seconds, curves, path
        path.write_text(json.dumps({"seconds": seconds, "curves": curves, "how": how}) + "\n")

    def curve(self, part: str) -> Curve | None:
        """Of a part; None if it is not trained."""
        if part not in self.curves:
            return None
        whole = sum(SHARES[each] for each in self.curves)
        return Curve(number=self.curves[part], seconds=self.seconds * SHARES[part] / whole)

    def finish(self) -> None:
        self._path.unlink()


class Training:
    """All parts of the nano model, each from its last checkpoint, or else from ``output``, or else from nothing."""

    def __init__(self, runs: Path, output: Path, device: torch.device, sizes: list[int], *, new: bool) -> None:
        self.runs, self.device, self.sizes, self.new = runs, device, sizes, new
        self.nano, self.pair = output / "nano", output / "nano_pair"
        self.batch = BATCH[device.type]

    def run(self, plan: Plan) -> None:
        """Train the parts of ``plan`` and write each when it is done."""
        tokenizer = self.tokenizer()
        vae = self.vae(plan.curve(VAE))
        image_encoder = self.image_encoder(plan.seconds).to(self.device)
        grids = [GRIDS[size] for size in self.sizes]
        shards = [Shards(self.runs / DATA, grid, vae, image_encoder, tokenizer) for grid in grids]
        if curve := plan.curve(DATA):
            for each in shards:
                each.make(MOST_SHARDS, curve.seconds / len(shards))
        text_encoder = self.text_encoder()
        counts = [self.batch.clips[size] for size in self.sizes]
        batches = Batches(shards, counts, text_encoder, str(tokenizer), self.device)
        transformer = self.transformer(text_encoder, batches, plan.curve(TRANSFORMER))
        for level in (HIGH, LOW):
            if curve := plan.curve(level):
                text_encoder.requires_grad_(False)
                expert = self.expert(level, transformer)
                train_expert(self.runs / level, level, expert, transformer, batches, curve, self.device)
                if self.to_write(level):
                    self.count_frames(expert, curve)
                    export.write_expert(self.pair, level, expert)
        if self.nano.exists():
            export.write_index(self.nano)
            export.check_size(self.nano, export.LIMIT)
        if self.pair.exists():
            export.check_size(self.pair, export.PAIR_LIMIT)
        plan.finish()

    def tokenizer(self) -> Path:
        folder = self.nano / "tokenizer"
        if not folder.exists():
            write_tokenizer(folder)
        return folder

    def vae(self, curve: Curve | None) -> WanVAE:
        """With the official latent statistics, on the device; nothing about it changes afterwards."""
        vae = new_vae() if self.new else load_vae(self.nano, dtype=torch.float32)
        resumed(self.runs / VAE, vae)
        if curve is not None:
            vae.to(self.device).requires_grad_(True)
            recipe = "new" if self.new and curve.number == 0 else "warm"
            train_vae(self.runs / VAE, vae, self.batch.vae, curve, self.device, recipe=recipe)
        trained = has_checkpoint(self.runs / VAE)
        vae.to(self.device).requires_grad_(False)
        if trained:
            statistics = measure(vae, SMALL.frames, SMALL.height)
            set_statistics(vae.cpu(), *statistics)
            vae.to(self.device)
            vae.config = replace(vae.config, latent_rgb=fit_latent_rgb(vae, SMALL.frames, SMALL.height))
        if curve is not None and self.to_write(VAE):
            export.write_vae(self.nano, vae)
        return vae

    def image_encoder(self, seconds: float) -> CLIPVisionModel:
        folder = self.nano / "image_encoder"
        if not self.new or folder.exists():
            return CLIPVisionModel.from_pretrained(folder).float()
        curve = Curve(number=0, seconds=IMAGE_SHARE * seconds)
        encoder = train_image_encoder(self.runs / "image", curve, self.device)
        export.write_encoder(folder, encoder)
        return encoder

    def text_encoder(self) -> UMT5EncoderModel:
        if self.new:  # it learns with the transformer
            torch.manual_seed(3)
            return UMT5EncoderModel(TEXT_CONFIG).to(self.device)
        encoder = UMT5EncoderModel.from_pretrained(self.nano / "text_encoder").float()
        return encoder.requires_grad_(False).to(self.device)

    def transformer(self, text_encoder: UMT5EncoderModel, batches: Batches, curve: Curve | None) -> WanTransformer:
        """On the device, with the text encoder beside it, as their last curve leaves them."""
        if self.new and not (self.nano / "transformer").exists():
            transformer = new_transformer()
        else:
            transformer = load_transformer(self.nano, dtype=torch.float32, attend=attend)
        transformer.to(self.device).requires_grad_(True)
        both = velocity_networks(text_encoder, transformer)
        resumed(self.runs / TRANSFORMER, both)
        if curve is not None:
            train_transformer(self.runs / TRANSFORMER, both, batches, curve, self.device)
            if self.to_write(TRANSFORMER):
                self.count_frames(transformer, curve)
                export.write_transformer(self.nano, transformer)
                if self.new:
                    export.write_encoder(self.nano / "text_encoder", text_encoder)
        return transformer.requires_grad_(False)

    def expert(self, level: str, transformer: WanTransformer) -> WanTransformer:
        """The one that is there; where there is none, what it begins as."""
        file = export.expert_file(self.pair, level)
        if file.exists():
            return load_transformer(file, dtype=torch.float32, attend=attend)
        return expert_of(transformer)

    def count_frames(self, model: WanTransformer, curve: Curve) -> None:
        """Let its sizes say how long the longest clip was that it saw."""
        frames = model.config.trained_frames
        if curve.seconds or frames == 1:
            frames = max(frames, *(GRIDS[size].frames for size in self.sizes))
        model.config = replace(model.config, trained_frames=frames)

    def to_write(self, part: str) -> bool:
        """Whether there is more of a part than what it began with: no step leaves no checkpoint."""
        trained = has_checkpoint(self.runs / part)
        if not trained:
            print(f"{part}: no step was done and there is no checkpoint, so nothing is written", flush=True)
        return trained


if __name__ == "__main__":
    main()
