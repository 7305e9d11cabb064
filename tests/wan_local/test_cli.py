"""The command line: a whole run, and one line with the value and the remedy for everything that can go wrong."""

from __future__ import annotations

import io
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from tests import tiny
from wan_local import kept, video
from wan_local.cli import inspect, main, to_paste
from wan_local.cli.progress_bar import ProgressBar
from wan_local.generate import Pipeline
from wan_local.progress import Progress
from wan_local.vae import WanVAE

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tiny.write_pipeline(folder)
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("images")
    for name, size in (("first", (48, 32)), ("last", (40, 40))):
        pixels = np.random.default_rng(len(name)).integers(0, 255, (size[1], size[0], 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")
    return folder / "first.png", folder / "last.png"


def arguments(model: Path, images: tuple[Path, Path], output: Path, *more: str) -> list[str]:
    quick = ["--length", "5", "--steps", "2", "--seed", "7", "--device", "cpu"]
    return ["generate", "--model", str(model), "--first", str(images[0]), "--last", str(images[1]),
            "--prompt", "a red disc", "--output", str(output), *quick, *more]  # fmt: skip


def run(*args: str) -> tuple[int, str, str]:
    """Status, output and errors of the command as a shell sees them; subprocess.run ends it if it takes too long."""
    done = subprocess.run(
        [sys.executable, "-m", "wan_local", *args], cwd=ROOT, text=True, timeout=600, check=False,
        capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def start(*args: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "wan_local", *args], cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"},
        # A shell's background jobs hand down an ignored Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


# -- approximations ----------------------------------------------------------------------------------------------


def test_a_clip_tells_what_was_not_calculated(
    model: Path, images: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the last line of the run and in the file; without a choice both say that it is exact."""
    output = tmp_path / "out.mp4"
    for more, said in (
        ((), "exact"),
        (("--speed", "balanced", "--steps", "12"), "balanced (skip list): 4 of 12 steps skipped, 16 of 24 forwards"),
    ):
        assert main(arguments(model, images, output, *more)) == 0
        assert f", {said})" in capsys.readouterr().out
        with av.open(str(output)) as file:
            assert file.metadata["approximations"] == said


# -- notices -----------------------------------------------------------------------------------------------------


def test_what_a_person_should_know_is_a_line_on_stderr(
    images: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One expert of Wan2.2, with a tensor that belongs to no layer."""
    folder = tiny.write_pipeline(tmp_path / "model")
    file = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    branch = ("image_embedder", "add_k_proj", "add_v_proj", "norm_added_k")
    tensors = {name: value for name, value in tiny.stored(file).items() if not any(part in name for part in branch)}
    save_file({**tensors, "model_type.Wan2_2": torch.ones(1)}, file, {"format": "pt"})
    assert main(arguments(folder, images, tmp_path / "clip.mp4")) == 0
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert any(line.startswith("warning: ") and "belongs to no layer" in line for line in lines)
    assert any(line.startswith("warning: the model is one of Wan2.2's two experts") for line in lines)
    assert "Traceback" not in err
    assert "warning" not in out
    assert main(["inspect", str(folder)]) == 0
    assert "one of Wan2.2's two experts, trained for high or for low noise alone" in capsys.readouterr().out


# -- a whole run ------------------------------------------------------------------------------------------------


def test_two_images_and_a_prompt_become_a_video(model: Path, images: tuple[Path, Path], tmp_path: Path) -> None:
    more = ["--fps", "8", "--frames", str(tmp_path / "frames"), "--sheet", str(tmp_path / "sheet.png")]
    status, out, err = run(*arguments(model, images, tmp_path / "new" / "clip.mp4", *more))
    assert status == 0, err
    lines = out.splitlines()
    assert lines[0] == "seed 7"
    assert "clip.mp4 (5 frames, 48x32, 8 fps" in lines[1]
    assert lines[2].startswith("ends: first ")
    assert "dB" in lines[2]
    for stage in ("encode text", "encode images", "sample", "decode", "write"):
        assert stage in err
    assert "s/step" in err
    assert "Loading weights" not in err  # the bars of others
    assert "\r" not in err  # a log, not a terminal

    frames, fps = video.read(tmp_path / "new" / "clip.mp4")
    assert frames.shape == (5, 32, 48, 3)
    assert fps == 8
    assert len(list((tmp_path / "frames").iterdir())) == 5
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.format == "PNG"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["frames", "new", "sheet.png"]  # nothing left over


def test_command_line_and_library_make_the_same_frames(model: Path, images: tuple[Path, Path], tmp_path: Path) -> None:
    assert main(arguments(model, images, tmp_path / "clip.mp4", "--frames", str(tmp_path / "frames"))) == 0
    frames = Pipeline.from_pretrained(model, device="cpu")(*images, "a red disc", length=5, steps=2, seed=7)
    written = [np.asarray(Image.open(path)) for path in sorted((tmp_path / "frames").iterdir())]
    assert torch.equal(torch.from_numpy(np.stack(written)), video.to_uint8(frames))


def test_the_vae_decodes_in_the_dtype_asked_for_and_the_file_is_not_read_again(
    model: Path, images: tuple[Path, Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    dtypes: list[torch.dtype] = []
    real = WanVAE.decode_stream

    def decode_stream(vae: WanVAE, latents: torch.Tensor, pace: int = 1) -> Iterator[torch.Tensor]:
        if not latents.is_meta:  # where memory is counted
            dtypes.append(latents.dtype)
        return real(vae, latents, pace)

    monkeypatch.setattr(WanVAE, "decode_stream", decode_stream)
    monkeypatch.setattr(video, "read", None)
    assert main(arguments(model, images, tmp_path / "clip.mp4", "--vae-dtype", "bfloat16")) == 0
    assert dtypes == [torch.bfloat16]
    assert "ends: first " in capsys.readouterr().out


def test_half_precision_runs_on_a_cpu_too(model: Path, images: tuple[Path, Path], tmp_path: Path) -> None:
    assert main(arguments(model, images, tmp_path / "clip.mp4", "--dtype", "bfloat16")) == 0


@pytest.mark.parametrize(
    ("more", "told"),
    [(["--windows", "5:0"], ""), (["--windows", "9:4"], "changes nothing"), (["--riflex"], "riflex acts")],
)
def test_ways_of_longer_clips(
    more: list[str], told: str, model: Path, images: tuple[Path, Path], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """The tiny model's time has one pair, of 6 latent frames a turn: 3 are not long."""
    assert main(arguments(model, images, tmp_path / "clip.mp4", "--length", "9", *more)) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if "acts on clips" in line]
    assert (told in lines[0]) if told else lines == []


def test_inspect_says_what_it_is(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(model)]) == 0
    text = capsys.readouterr().out
    assert "FLF2V transformer" in text
    assert main(["inspect", str(model), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["parts"]


def test_a_name_that_the_output_has_no_letters_for_is_written_in_numbers(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a file on Windows, whose letters are those of its language."""
    (tmp_path / "海").symlink_to(model / "vae")
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="cp1252"))
    assert main(["inspect", str(tmp_path / "海")]) == 0
    assert b"\\u6d77" in raw.getvalue()


@pytest.mark.parametrize(
    ("platform", "line"),
    [("linux", "decode '/my films/a.pt' --fps 8"), ("win32", 'decode "C:\\my films\\a.pt" --fps 8')],
)
def test_a_command_can_be_pasted_where_it_is_shown(platform: str, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shell of Windows takes ' for a letter."""
    path = "C:\\my films\\a.pt" if platform == "win32" else "/my films/a.pt"
    monkeypatch.setattr(sys, "platform", platform)
    assert to_paste(["decode", path, "--fps", "8"]) == f"python -m wan_local {line}"


# -- what can go wrong ------------------------------------------------------------------------------------------

WRONG_USE = [
    (["--length", "80"], "length=80 is not 4n+1; use 77 or 81"),
    (["--length", "eighty"], "argument --length: invalid int value: 'eighty'"),
    (["--width", "100"], "width=100 is not a multiple of 16; use 96 or 112"),
    (["--height", "8"], "height=8 is not a multiple of 16; use 16"),
    (["--steps", "0"], "steps=0 can't be used; give a whole number from 1"),
    (["--guidance", "nan"], "guidance=nan can't be used; give a number"),
    (["--shift", "-1"], "shift=-1.0 can't be used; give a number above 0"),
    (["--sampler", "heun"], "sampler='heun' is not known; use unipc, dpm++, euler"),
    (["--seed", "-5"], "seed=-5 can't be used"),
    (["--fps", "0"], "fps=0.0 is not a frame rate; use more than 0"),
    (["--motion", "3"], "motion=3.0 can't be used; give a number from 1 to 2"),
    (["--windows", "81-28"], "--windows 81-28 can't be read; write FRAMES or FRAMES:OVERLAP, such as 81:28"),
    (["--windows", "9:12"], "overlap=12 leaves nothing new in a window of 9 frames; give at most 8"),
    (["--windows", "81", "--riflex"], "not allowed with argument"),
    (["--fit", "zoom"], "fit='zoom' is not known; use crop, pad, stretch"),
    (["--dtype", "int8"], "invalid choice: 'int8'"),
    (["--leng", "5"], "unrecognized arguments: --leng 5"),
]


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    streams = capsys.readouterr()
    lines = streams.err.strip().splitlines()
    assert len(lines) == 1, streams.err
    assert streams.out == ""
    return lines[0]


@pytest.mark.parametrize(("more", "message"), WRONG_USE)
def test_wrong_use_is_status_2_and_one_line(
    more: list[str], message: str, images: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(arguments(tmp_path / "none", images, tmp_path / "clip.mp4", *more))
    assert exit_info.value.code == 2
    assert message in one_line(capsys)
    assert list(tmp_path.iterdir()) == []


def failing(case: str, model: Path, images: tuple[Path, Path], folder: Path) -> tuple[list[str], str]:
    """Arguments for a run that must fail, and a part of what must be said."""
    first, last = images
    output = folder / "clip.mp4"
    if case == "missing image":
        return arguments(model, (folder / "no.png", last), output), "no.png is not there; check the path"
    if case == "unreadable image":
        (folder / "text.png").write_text("hello")
        return arguments(model, (first, folder / "text.png"), output), "text.png can't be read as an image"
    if case == "missing model":
        return arguments(folder / "no-model", images, output), "no-model is not there"
    if case == "empty model":
        (folder / "empty").mkdir()
        return arguments(folder / "empty", images, output), "empty holds no transformer"
    if case == "unknown video":
        return arguments(model, images, folder / "clip.gif"), "clip.gif does not end in .mp4"
    if case == "output in a file":
        (folder / "file").write_text("")
        return arguments(model, images, folder / "file" / "clip.mp4"), "can't write"
    if case == "output is a folder":
        output.mkdir()
        return arguments(model, images, output), "clip.mp4 is a folder; name a file in it"
    if case == "frames folder in use":
        (folder / "frames").mkdir()
        (folder / "frames" / "old.png").write_text("")
        return arguments(model, images, output, "--frames", str(folder / "frames")), "is not empty; name a new"
    if case == "sheet over an image":
        return arguments(model, images, output, "--sheet", str(first)), "is one of the images"
    if case == "sheet over the video":
        return arguments(model, images, output, "--sheet", f"{folder}/./clip.mp4"), "can't both be there; name another"
    if case == "video among the frames":
        inside = folder / "new" / "clip.mp4"
        return arguments(model, images, inside, "--frames", str(inside.parent)), "would lie in one folder; name a"
    assert case == "missing device"
    return arguments(model, images, output, "--device", "cuda:99"), "device='cuda:99' can't be used here; use cpu"


@pytest.mark.parametrize(
    "case",
    ["missing image", "unreadable image", "missing model", "empty model", "unknown video", "output in a file",
     "output is a folder", "frames folder in use", "sheet over an image", "sheet over the video",
     "video among the frames", "missing device"],
)  # fmt: skip
def test_failure_is_status_1_and_one_line(
    case: str, model: Path, images: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args, message = failing(case, model, images, tmp_path)
    assert main(args) == 1
    assert message in one_line(capsys)


def test_full_disk_is_told_before_the_run(
    model: Path, images: tuple[Path, Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    class Full:
        free = 1000

    monkeypatch.setattr("wan_local.output.shutil.disk_usage", lambda _: Full)
    assert main(arguments(model, images, tmp_path / "clip.mp4")) == 1
    assert "MB are free; make room" in one_line(capsys)


def test_failed_write_keeps_the_latents_and_the_old_video(
    model: Path, images: tuple[Path, Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    (tmp_path / "clip.mp4").write_bytes(b"a good film")
    monkeypatch.setattr(video, "_count_packets", lambda path: 3)
    assert main(arguments(model, images, tmp_path / "clip.mp4")) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert "came out incomplete" in lines[-1]
    assert "latents kept in" in lines[-2]
    assert (tmp_path / "clip.mp4").read_bytes() == b"a good film"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.latents.safetensors", "clip.mp4"]


def test_no_traceback_and_the_real_status_from_a_shell(images: tuple[Path, Path], tmp_path: Path) -> None:
    for status, args in (
        (2, []),
        (2, arguments(tmp_path, images, tmp_path / "clip.mp4", "--length", "80")),
        (1, arguments(tmp_path / "no-model", images, tmp_path / "clip.mp4")),
    ):
        got, out, err = run(*args)
        assert (got, out, len(err.splitlines())) == (status, "", 1), err


def test_ctrl_c_is_one_line_and_leaves_nothing(model: Path, images: tuple[Path, Path], tmp_path: Path) -> None:
    with start(*arguments(model, images, tmp_path / "clip.mp4", "--steps", "1000")) as process:
        try:
            assert process.stderr is not None
            lines = [""]
            while not lines[-1].startswith("sample"):  # the first step is on its way
                lines.append(process.stderr.readline())
                assert lines[-1], lines
            process.send_signal(signal.SIGINT)
            started = time.monotonic()
            _, err = process.communicate(timeout=300)
        finally:
            process.kill()
    print(f"stopped {time.monotonic() - started:.2f} s after Ctrl-C")
    assert process.returncode == 130
    assert err.splitlines()[-1].endswith("stopped; a finished file from before is untouched")
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


# -- the bar ----------------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_bar_tells_speed_and_time_left() -> None:
    seconds = iter([0.0, 2.0, 4.0, 20.0])
    out = Terminal()
    bar = ProgressBar(out, clock=lambda: next(seconds))
    for done in (0, 1, 2, 10):
        bar(Progress(stage="sample", done=done, total=10))
    bar.close()
    drawn = out.getvalue().split("\r")
    assert "1/10  2.00 s/step, 0:18 left" in drawn[2]
    assert "2/10  2.00 s/step, 0:16 left" in drawn[3]
    assert "10/10  2.00 s/step, 20.0 s in all" in drawn[4]
    assert out.getvalue().count("\n") == 1


def test_log_gets_few_lines() -> None:
    out = io.StringIO()
    ticks = iter(range(1000))
    bar = ProgressBar(out, clock=lambda: next(ticks) * 1.0)
    for done in range(101):
        bar(Progress(stage="sample", done=done, total=100))
    bar.close()
    lines = out.getvalue().splitlines()
    assert 5 <= len(lines) <= 10
    assert "100/100" in lines[-1]


def test_kept_latents_are_decoded_to_the_same_video(model, images, tmp_path, monkeypatch):
    whole, kept = tmp_path / "whole.mp4", tmp_path / "kept.mp4"
    assert main(arguments(model, images, whole)) == 0
    with monkeypatch.context() as broken:
        broken.setattr(Pipeline, "decode_stream", lambda *given: (_ for _ in ()).throw(MemoryError("made up")))
        assert main(arguments(model, images, kept)) == 1
    latents = tmp_path / "kept.latents.safetensors"
    assert main(["decode", str(latents), "--model", str(model), "--output", str(kept), "--device", "cpu"]) == 0
    assert torch.equal(video.read(kept)[0], video.read(whole)[0])


def test_the_line_about_kept_latents_is_a_command_that_works(model, images, tmp_path, monkeypatch, capsys):
    """Memory runs out at everything; the printed line, pasted when there is room again, makes the video."""
    whole, clip = tmp_path / "whole.mp4", tmp_path / "a clip.mp4"
    assert main(arguments(model, images, whole, "--fps", "12.5")) == 0
    with monkeypatch.context() as full:
        full.setattr(WanVAE, "decode_stream", no_room(0))
        assert main(arguments(model, images, clip, "--fps", "12.5")) == 1
    line, error = capsys.readouterr().err.strip().splitlines()[-2:]
    assert "decoding ran out of memory" in error
    command = line.partition("to go on: python -m wan_local ")[2]
    assert main(shlex.split(command)) == 0
    frames, rate = video.read(clip)
    assert (torch.equal(frames, video.read(whole)[0]), rate) == (True, 12.5)


@pytest.mark.parametrize("how", [[], ["--tiling", "128"]])
def test_decode_goes_on_in_tiles_and_tells_so(model, tmp_path, monkeypatch, capsys, how):
    file, clip = tmp_path / "two.latents.safetensors", tmp_path / "clip.mp4"
    kept.write(file, torch.randn(2, 16, 2, 18, 16, generator=torch.Generator().manual_seed(0)))
    monkeypatch.setattr(WanVAE, "decode_stream", no_room(256))
    assert main(["decode", str(file), "--model", str(model), "--output", str(clip), "--device", "cpu", *how]) == 0
    assert video.read(clip)[0].shape == (10, 144, 128, 3)  # both clips, one after the other
    told = "out of memory with whole frames; beginning again in tiles of 128 pixels"
    assert (told in capsys.readouterr().err) is (not how)


def test_a_decode_that_may_not_cut_is_one_line(model, tmp_path, monkeypatch, capsys):
    file = tmp_path / "one.latents.safetensors"
    kept.write(file, torch.zeros(1, 16, 2, 18, 16))
    monkeypatch.setattr(WanVAE, "decode_stream", no_room(256))
    command = ["decode", str(file), "--model", str(model), "--output", str(tmp_path / "a.mp4"), "--device", "cpu"]
    assert main([*command, "--tiling", "off"]) == 1
    assert capsys.readouterr().err.splitlines()[-1].endswith("tiling is off; set tiling to auto")
    with pytest.raises(SystemExit) as caught:
        main([*command, "--tiling", "some"])
    assert caught.value.code == 2


def no_room(cells):
    """A ``WanVAE.decode_stream`` on a device that holds so many latent cells."""
    real = WanVAE.decode_stream

    def decode_stream(self, latents, pace=1):
        if not latents.is_meta and latents.shape[-1] * latents.shape[-2] > cells:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB.")
        return real(self, latents, pace)

    return decode_stream


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("[enforce fail at alloc_cpu.cpp:127] data. DefaultCPUAllocator: can't allocate memory: you tried to allocate "
         "260919263232 bytes. Error code 12 (Cannot allocate memory)",
         "out of memory; use a smaller size or a shorter length"),
        ("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes.",
         "out of memory; use a smaller size or a shorter length"),
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
         "out of GPU memory; use a smaller size, a shorter length or --device cpu"),
    ],
)  # fmt: skip
def test_too_little_memory_is_one_line_however_it_is_said(monkeypatch, capsys, said, told):
    def fail(args):
        raise RuntimeError(said)

    monkeypatch.setattr(inspect, "run", fail)
    assert main(["inspect", "."]) == 1
    assert capsys.readouterr().err == f"python -m wan_local inspect: {told}\n"


def test_what_are_no_latents_is_refused(model, tmp_path, capsys):
    file = model / "vae" / "diffusion_pytorch_model.safetensors"
    assert main(["decode", str(file), "--model", str(model), "--output", str(tmp_path / "a.mp4")]) == 1
    error = capsys.readouterr().err
    assert "holds no latents" in error
    assert error.count("\n") == 1


def test_loras_are_merged_and_told(model, images, tmp_path, capsys):
    from safetensors.torch import save_file

    from wan_local.weights import load_transformer

    weight = load_transformer(model).blocks[0].ffn[0].weight
    lora, name = tmp_path / "a.safetensors", "diffusion_model.blocks.0.ffn.0"
    save_file({f"{name}.lora_A.weight": torch.ones(2, weight.shape[1]),
               f"{name}.lora_B.weight": torch.ones(weight.shape[0], 2)}, lora)  # fmt: skip
    plain, changed, off = (tmp_path / f"{name}.mp4" for name in ("plain", "changed", "off"))
    assert main(arguments(model, images, plain)) == 0
    assert main(arguments(model, images, changed, "--lora", f"{lora}:2.5")) == 0
    assert "LoRA a.safetensors: 2 tensors change 1 parameter, strength 2.5" in capsys.readouterr().out
    assert not torch.equal(video.read(changed)[0], video.read(plain)[0])
    assert main(arguments(model, images, off, "--lora", str(lora), "--lora", f"{lora}:-1")) == 0
    assert torch.equal(video.read(off)[0], video.read(plain)[0])


def test_a_lora_that_is_none_is_one_line(model, images, tmp_path, capsys):
    assert main(arguments(model, images, tmp_path / "a.mp4", "--lora", str(tmp_path / "none.safetensors:1"))) == 1
    assert "is not there" in capsys.readouterr().err


@pytest.mark.parametrize("library", ["wan_local inspect weights/nano/vae --json", "wan_remote jobs"])
def test_a_reader_that_has_gone_is_no_error(library: str, tmp_path: Path) -> None:
    """As `head` goes when it has seen enough."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-m", *library.split()], stdout=writing, stderr=subprocess.PIPE, text=True, timeout=100,
            env={**os.environ, "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}, cwd=ROOT,
        )  # fmt: skip
    finally:
        os.close(writing)
    assert done.stderr == ""
