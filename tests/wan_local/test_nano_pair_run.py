"""The bundled pair of experts from two files to a clip, as a person would run it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from wan_local.cli import main
from wan_local.denoiser import load_denoisers
from wan_local.generate import Pipeline
from wan_local.longer import Longer
from wan_local.parts import Parts
from wan_local.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
HIGH, LOW = (ROOT / "weights" / "nano_pair" / f"{level}_noise.safetensors" for level in ("high", "low"))
NANO = ROOT / "weights" / "nano"
IMAGES = [ROOT / "demo" / f"nano_{end}.png" for end in ("first", "last")]
PROMPT = (ROOT / "demo" / "nano_prompt.txt").read_text(encoding="utf-8").strip()
SIZE = {"width": 64, "height": 64, "length": 17, "seed": 3}


def test_the_command_line_needs_no_image_encoder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, last = map(str, IMAGES)
    options = ["--first", first, "--last", last, "--prompt", PROMPT, "--negative", "", "--output"]
    parts = ["--model", str(HIGH), "--model-low", str(LOW), "--vae", str(NANO), "--text-encoder", str(NANO)]
    size = [word for name, value in SIZE.items() for word in (f"--{name}", str(value))]
    chosen = ["--steps", "8", "--guidance", "2", "--low-guidance", "1", "--device", "cpu", "--no-cache"]
    assert main(["generate", *parts, *options, str(tmp_path / "a.mp4"), *size, *chosen]) == 0
    told = capsys.readouterr().out
    found = [float(value) for value in re.findall(r"([\d.]+) dB", told)]
    print(told)
    assert min(found) >= 20
    with pytest.raises(SystemExit):
        main(["generate", *parts[:2], "--first", first, "--last", last, "--prompt", PROMPT, "--output", "b.mp4"])
    assert "give --vae, --text-encoder too, or a model folder" in capsys.readouterr().err


@pytest.fixture(scope="module")
def parts() -> Parts:
    return Parts(vae=NANO, text_encoder=NANO)


def latents(parts: Parts, **options: object) -> torch.Tensor:
    chosen = SIZE | options.pop("settings", {})
    pipeline = Pipeline.from_pretrained(options.pop("model", HIGH), device="cpu", parts=parts, **options)
    settings = Settings.of(pipeline.recipe, **chosen, steps=4, guidance=2.0, sampler="unipc")
    return pipeline.generate(*IMAGES, PROMPT, settings).latents


def test_a_boundary_at_either_end_leaves_one_expert_alone(parts: Parts) -> None:
    both = latents(parts, low=LOW)
    for boundary, alone in ((1.0, LOW), (0.0, HIGH)):
        found = latents(parts, low=LOW, boundary=boundary)
        assert torch.equal(found, latents(parts, denoisers=load_denoisers(alone, dtype=torch.float32)))
        assert not torch.equal(found, both)


def test_blocks_in_host_memory_change_nothing(parts: Parts) -> None:
    assert torch.equal(latents(parts, low=LOW, offload=2), latents(parts, low=LOW, offload="none"))


def test_long_clips_are_made_in_windows_or_with_slower_time(parts: Parts) -> None:
    """Both experts and blocks in host memory take part; the model's own 17 frames say how long is long."""
    ways = {way: Longer(way=way, window=17, overlap=8) for way in ("plain", "windows", "riflex")}
    found = {way: latents(parts, low=LOW, settings={"length": 25, "longer": ways[way]}) for way in ways}
    assert all(each.shape[2] == 7 for each in found.values())
    assert not any(torch.allclose(found["plain"], found[way], atol=0.1) for way in ("windows", "riflex"))
    offloaded = latents(parts, low=LOW, offload=2, settings={"length": 25, "longer": ways["windows"]})
    assert torch.equal(offloaded, found["windows"])
