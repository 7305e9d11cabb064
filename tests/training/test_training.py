"""``python -m training`` at toy sizes: from nothing to files that load, on from there, and on after a kill."""

from __future__ import annotations

import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from training import __main__ as command
from training import dataset, loop, train_image_encoder, train_pair, train_transformer, train_vae
from training.batches import Batches
from training.known import MOST_MIDDLE, random_known
from training.loop import Curve, Recipe, train
from training.tokenizer import TEXT_LEN, write_tokenizer
from wan_local.config import VAEConfig
from wan_local.generate import Pipeline
from wan_local.parts import Parts
from wan_local.shapes import Grid
from wan_local.weights import load_transformer, load_vae

CPU = torch.device("cpu")
A_MOMENT = 1e-6  # seconds: every part does one step
GRID = Grid(frames=9, height=32, width=32)


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything small, and one size."""
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    text, image = train_transformer.TEXT_CONFIG.to_dict() | sizes, train_image_encoder.CONFIG.to_dict()
    image |= {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    toy_image = type(train_image_encoder.CONFIG)(**image)
    small = replace(
        train_transformer.CONFIG, dim=16, ffn_dim=24, num_heads=1, num_layers=3, text_dim=16, freq_dim=16, image_dim=16
    )
    for module, name, value in (
        (command, "GRIDS", {32: GRID}),
        (command, "SMALL", GRID),
        (command, "MOST_SHARDS", 1),
        (command, "BATCH", {"cpu": command.Batch(vae=1, clips={32: 4})}),
        (command, "TEXT_CONFIG", type(train_transformer.TEXT_CONFIG)(**text)),
        (dataset, "SHARD", 8),
        (train_image_encoder, "CONFIG", toy_image),
        (train_transformer, "CONFIG", small),
        (train_pair, "FFN", 8),
        (train_vae, "CONFIG", VAEConfig(dim=4)),
        (train_vae, "CROP", 16),
        (train_vae, "SIZES", (32,)),
        (train_vae, "LENGTHS", {5: 1}),
    ):
        monkeypatch.setattr(module, name, value)


def run(folder: Path, parts: list[str], *, new: bool = False, seconds: float = A_MOMENT) -> None:
    training = command.Training(folder / "runs", folder / "weights", CPU, [32], new=new)
    training.run(command.plan(folder / "runs", parts, seconds, sizes=[32], new=new))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_from_nothing_and_on(toy: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    """In what each CPU is faster at: which that is on this one does not matter."""
    for module in (loop, dataset):
        monkeypatch.setattr(module, "fast_dtype", lambda device: dtype)
    parts = list(command.SHARES)
    run(tmp_path, parts, new=True)
    nano, pair = tmp_path / "weights" / "nano", tmp_path / "weights" / "nano_pair"
    before = load_transformer(nano), load_vae(nano), load_transformer(pair / "low_noise.safetensors")
    assert len(before[1].config.latent_rgb) == before[1].config.z_dim + 1
    run(tmp_path, parts)
    after = load_transformer(nano), load_vae(nano), load_transformer(pair / "low_noise.safetensors")
    for old, new in zip(before, after, strict=True):
        assert not torch.equal(next(old.parameters()), next(new.parameters()))
    expected = train_pair.expert_config(after[0].config)
    assert after[2].config == replace(expected, trained_frames=GRID.frames, text_len=TEXT_LEN)
    low, high = pair / "low_noise.safetensors", pair / "high_noise.safetensors"
    image, settings = torch.rand(3, 32, 32), {"width": 32, "height": 32, "length": 9, "steps": 2}
    assert Pipeline.from_pretrained(nano)(image, image, "a red circle", **settings).shape == (9, 32, 32, 3)
    parts_of = Parts(vae=nano, text_encoder=nano)
    frames = Pipeline.from_pretrained(high, low=low, parts=parts_of)(image, image, "a red circle", **settings)
    assert frames.shape == (9, 32, 32, 3)
    trained = load_file(low)
    low.unlink()
    run(tmp_path, ["low"], seconds=0.0)
    written = load_file(low)
    assert all(torch.equal(written[name], value) for name, value in trained.items()), "what the checkpoint has"
    without_a_checkpoint(tmp_path, low)


def without_a_checkpoint(folder: Path, low: Path) -> None:
    """As on a clone, which has the bundled experts and no run: they go on, and no step leaves them as they are."""
    shutil.rmtree(folder / "runs" / "low")
    with safe_open(low, "pt") as file:
        header = file.metadata()
    bundled = {name: value * 1.5 for name, value in load_file(low).items()}
    save_file(bundled, low, header)
    config = folder / "weights" / "nano" / "transformer" / "config.json"
    config.write_text(config.read_text().replace(f'_trained_frames": {GRID.frames}', '_trained_frames": 33'))
    before = low.read_bytes()
    run(folder, ["low"], seconds=0.0)
    assert low.read_bytes() == before
    run(folder, ["low"])
    written = load_file(low)
    assert low.read_bytes() != before
    assert all((written[name] - value).abs().max() < 0.01 for name, value in bundled.items())
    assert load_transformer(low).config.trained_frames == GRID.frames, "not those of the transformer"


def test_nothing_that_is_there_gets_into_what_begins_from_nothing(tmp_path: Path) -> None:
    runs, output = tmp_path / "runs", tmp_path / "weights"
    (output / "nano").mkdir(parents=True)
    with pytest.raises(SystemExit, match="nano is there, and --new begins from nothing"):
        command.begin_from_nothing(runs, output)
    (output / "nano").rmdir()
    command.begin_from_nothing(runs, output)
    (runs / "vae").mkdir()
    (runs / "vae" / "state.pt").touch()
    command.begin_from_nothing(runs, output)  # again, after a kill
    (runs / command.NEW).unlink()
    with pytest.raises(SystemExit, match="state.pt is there"):
        command.begin_from_nothing(runs, output)


class Killed(Exception):
    pass


def test_a_killed_curve_goes_on_and_the_next_begins_where_it_ended(tmp_path: Path) -> None:
    model, seen = nn.Linear(2, 2), []
    recipe = Recipe(learning_rate=0.1, warmup=1, checkpoint_every=0.0)

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        seen.append(step)
        if len(seen) in (4, 8):
            raise Killed
        return model(torch.ones(1, 2)).square().sum(), {}

    for _ in range(2):
        with pytest.raises(Killed):
            train(model, loss, recipe, tmp_path, Curve(number=0, seconds=3600.0), CPU)
    assert seen == [0, 1, 2, 3, 3, 4, 5, 6]
    averaged = torch.load(tmp_path / "state.pt", weights_only=True)["averaged"]
    train(model, loss, recipe, tmp_path, Curve(number=1, seconds=0.0), CPU)
    assert torch.equal(model.weight, averaged["weight"])
    train(model, loss, recipe, tmp_path, Curve(number=1, seconds=A_MOMENT), CPU)
    assert seen[-1] == 1_000_000, "another curve sees other batches"


def test_an_unfinished_plan_is_the_one_that_goes_on(tmp_path: Path) -> None:
    how: dict[str, Any] = {"sizes": [64, 128], "new": False}
    first = command.plan(tmp_path, ["high", "low"], 60.0, **how)
    again = command.plan(tmp_path, ["low", "high"], 999.0, **how)
    assert (again.seconds, again.curves) == (60.0, first.curves)
    for other in ({"sizes": [64]}, {"new": True}):
        with pytest.raises(SystemExit, match="not finished, with --sizes 64 128, without --new; give that"):
            command.plan(tmp_path, ["high", "low"], 60.0, **how | other)
    again.finish()
    assert command.plan(tmp_path, ["high", "low"], 999.0, **how).seconds == 999.0


@pytest.mark.parametrize("frames", [5, 17, 33])
def test_frames_that_are_known_are_in_the_clip_and_middle_ones_end_a_latent_frame(frames: int) -> None:
    rng, last = random.Random(0), frames - 1
    drawn = [random_known(rng, frames) for _ in range(500)]
    assert all(known == tuple(sorted(set(known))) and 0 <= known[0] and known[-1] <= last for known in drawn)
    assert {(0, last), (0,), (last,)} <= set(drawn)
    middles = [known[1:-1] for known in drawn if 1 not in known and known[-1] == last]
    assert all(len(middle) <= MOST_MIDDLE and all(frame % 4 == 0 for frame in middle) for middle in middles)
    assert any(middles) == (frames > 5)


def test_an_expert_begins_near_what_it_learns_from() -> None:
    config = replace(train_transformer.CONFIG, dim=32, num_heads=1, text_dim=16, image_dim=16)
    torch.manual_seed(0)
    transformer = train_transformer.initialise(train_transformer.WanTransformer(config))
    expert = train_pair.expert_of(transformer)
    assert torch.equal(expert.blocks[2].self_attn.q.weight, transformer.blocks[2].self_attn.q.weight)
    wide, kept = transformer.blocks[0].ffn, expert.blocks[0].ffn
    lost = wide[0].weight.norm(dim=1) * wide[2].weight.norm(dim=0)
    assert kept[0].weight.shape[0] == train_pair.FFN
    smallest = (kept[0].weight.norm(dim=1) * kept[2].weight.norm(dim=0)).min()
    assert (lost >= smallest).sum() == train_pair.FFN, "the units with the largest weights are kept"


def test_a_batch_for_a_model_with_image_rows_has_those_of_the_known_ends(toy: None, tmp_path: Path) -> None:
    class Made(dataset.Shards):
        def __init__(self) -> None: ...

        def made(self) -> list[Path]:
            return [tmp_path]

        def load(self) -> dict[str, Tensor]:
            ends = torch.tensor([[True, True], [True, False], [False, True]]).repeat(4, 1)
            rows = torch.arange(4.0).view(1, 4, 1).expand(12, 4, 1)
            return {
                "latents": torch.zeros(12, 16, 2, 2, 2), "condition": torch.zeros(12, 16, 2, 2, 2),
                "image": rows, "mask": torch.zeros(12, 4, 2), "ids": torch.zeros(12, TEXT_LEN, dtype=torch.int16),
                "ends": ends, "bare": ends.all(1),
            }  # fmt: skip

    write_tokenizer(tmp_path / "tokenizer")
    text = command.UMT5EncoderModel(command.TEXT_CONFIG)
    batches = Batches([Made()], [6], text, str(tmp_path / "tokenizer"), CPU)
    seen = {}
    for step in range(20):
        batch = batches.draw(step, alike=True)
        seen[batch.image_row] = batch.image[:, :, 0].tolist()
        assert batch.bare.all() == (batch.image_row is None)
    assert seen == {None: [[0, 1, 2, 3]] * 6, 0: [[0, 1]] * 6, 2: [[2, 3]] * 6}
