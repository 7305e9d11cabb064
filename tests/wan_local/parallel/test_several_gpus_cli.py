"""``--gpus`` on the command line: wrong use is told at once, and every GPU is given back when its work is done."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from wan_local import generate
from wan_local.cli import generate as cli_generate
from wan_local.cli import main, several_gpus
from wan_local.ranks import RankGroup
from wan_local.settings import FLF2V

ROOT = Path(__file__).resolve().parents[3]


def command(tmp_path: Path, *more: str) -> list[str]:
    return [
        "generate", "--model", str(ROOT / "weights/nano"), "--first", str(ROOT / "demo/nano_first.png"),
        "--last", str(ROOT / "demo/nano_last.png"), "--prompt", "a red disc", "--length", "5", "--steps", "2",
        "--seed", "3", "--no-cache", "--output", str(tmp_path / "a.mp4"), *more,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--sequence-backend", "yunchang"), "--sequence-backend and --step-limit need --gpus 2 or more"),
        (("--fsdp",), "need --gpus 2 or more"),
        (("--ulysses", "2"), "need --gpus 2 or more"),
        (("--gpus", "2", "--step-limit", "0"), "--step-limit 0.0 can't be used; give seconds above 0"),
        (("--step-limit", "9"), "need --gpus 2 or more"),
        (("--gpus", "2", "--device", "cuda:1"), "--device cuda:1 can't be used with several GPUs"),
        (("--gpus", "2", "--offload", "20"), "--offload 20 can't be used with several GPUs"),
        (("--gpus", "2", "--lora", "a.safetensors@1-2"), "counts in some steps only, which several GPUs can't do"),
        (("--ray-address", "10.0.0.1:6379", "--offload", "none"), "--offload none can't be used with several GPUs"),
    ],
)
def test_wrong_use(tmp_path: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...], words: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(command(tmp_path, *more))
    assert ended.value.code == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--lora", "nowhere.safetensors"), "nowhere.safetensors is not there"),
        (("--ray-address", "10.0.0.1"), "ray address '10.0.0.1'; use host:port"),
        (("--sequence-backend", "xfuser"), "backend='xfuser' can't be used here"),
        (("--gpus", "3", "--ulysses", "3"), "does not divide the 4 heads"),
    ],
)
def test_what_can_not_be_is_told_before_the_encoders_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], more: tuple, words: str
) -> None:
    monkeypatch.setattr(generate.Pipeline, "from_pretrained", lambda *args, **options: pytest.fail("read the parts"))
    assert main(command(tmp_path, "--device", "cpu", "--gpus", "2", *more)) == 1
    assert words in capsys.readouterr().err


def test_what_a_lora_does_is_told_there_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    width = 256
    layer, other = "diffusion_model.blocks.0.self_attn.q", "lora_te_encoder_block_0"
    names = {f"{stem}.lora_{side}": shape for stem in (layer, other)
             for side, shape in (("down", (2, width)), ("up", (width, 2)))}  # fmt: skip
    save_file({f"{name}.weight": torch.zeros(shape) for name, shape in names.items()}, tmp_path / "a.safetensors")
    sampled = SimpleNamespace(settings=SimpleNamespace(seed=3), approximated="exact")
    vae = SimpleNamespace(config=SimpleNamespace(upscale=1))
    pipeline = SimpleNamespace(recipe=FLF2V, vae=vae, generate=lambda *given, **options: sampled)
    monkeypatch.setattr(generate.Pipeline, "from_pretrained", lambda *args, **options: pipeline)
    monkeypatch.setattr(cli_generate, "_write", lambda *given: "ends")
    assert main(command(tmp_path, "--device", "cpu", "--gpus", "2", "--lora", f"{tmp_path / 'a.safetensors'}:0.5")) == 0
    line = capsys.readouterr().out.splitlines()[0]
    assert line.startswith("LoRA a.safetensors: 2 tensors change 1 parameter; 2 not used ('lora_te_encoder_block_0")
    assert line.endswith("strength 0.5")


def test_the_help_says_why_xfuser_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["generate", "--help"])
    assert "xfuser itself is always refused" in " ".join(capsys.readouterr().out.split())


def test_gpus_are_free_before_the_ranks_and_before_decoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The frames are those of one GPU; at guidance 1 the line that is printed tells the split that is used."""
    told: list[str] = []
    pids: list[int] = []
    start, close, decode = RankGroup.start, RankGroup.close, generate.Pipeline.decode_stream

    def started(group: RankGroup, *args: Any) -> None:
        told.append("ranks")
        start(group, *args)
        pids.extend(group.pids)

    def decoded(pipeline: Any, *args: Any) -> Any:
        told.append(f"decode, ranks left: {[pid for pid in pids if Path(f'/proc/{pid}').exists()]}")
        return decode(pipeline, *args)

    monkeypatch.setattr(several_gpus, "release", lambda: told.append("encoders released"))
    monkeypatch.setattr(RankGroup, "start", started)
    monkeypatch.setattr(RankGroup, "close", lambda group, *why: told.append("closed") or close(group, *why))
    monkeypatch.setattr(generate.Pipeline, "decode_stream", decoded)
    monkeypatch.chdir(ROOT)
    alone = [*command(tmp_path, "--device", "cpu", "--guidance", "1"), "--output", str(tmp_path / "one.mp4")]
    assert main(alone) == 0
    told.clear()
    assert main(command(tmp_path, "--device", "cpu", "--gpus", "2", "--guidance", "1", "--model", "weights/nano")) == 0
    assert told == ["encoders released", "ranks", "closed", "decode, ranks left: []"]
    assert len(pids) == 2
    assert "2 GPUs: cfg 1 x ulysses 2 x ring 1: 2 of 4 heads a GPU; this runs on the CPU" in capsys.readouterr().out
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "one.mp4").read_bytes()
