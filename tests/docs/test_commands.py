"""The commands of the first page, run as they stand there: on small files of the same names, with one step a clip."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import wan_local.cli
import wan_remote.cli
from tests.wan_remote.clocks import Impatient
from tests.wan_remote.stand_in.client import GMI, WAVESPEED, StandIn
from wan_local import weights

pytestmark = pytest.mark.long
ROOT = Path(__file__).parents[2]
NANO, PAIR = ROOT / "weights" / "nano", ROOT / "weights" / "nano_pair"
SMALL = ("--steps", "1", "--width", "32", "--height", "32", "--length", "45")
INSTALLS = ("cd", "git", "comfy", "pip")  # what would change this machine


def commands(page: str) -> list[str]:
    """One a line, without comments."""
    blocks = re.findall(r"^```\n(.*?)^```", (ROOT / page).read_text("utf-8"), re.DOTALL | re.MULTILINE)
    lines = "".join(block for block in blocks if "__init__.py" not in block).replace("\\\n", " ").splitlines()
    return [" ".join(line.split("#")[0].split()) for line in lines if line.split("#")[0].strip()]


COMMANDS = commands("README.md")
LOCAL, REMOTE = (
    [each for each in COMMANDS if each.startswith(f"python -m wan_{room} ")] for room in ("local", "remote")
)


def test_both_pages_have_the_same_commands_and_every_one_is_tried() -> None:
    assert commands("README.zh.md") == COMMANDS
    makes = [each for each in COMMANDS if each.startswith("make ")]
    rest = set(COMMANDS) - {*LOCAL, *REMOTE, *makes}
    assert all(each.startswith((*INSTALLS, "python -m pip install -r ")) for each in rest), rest
    for each in makes:  # tests/demo and the suite itself run them
        done = subprocess.run([*each.split(), "--dry-run"], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled model under the names of the released one, as a folder and as single files; images and jobs."""
    place = tmp_path_factory.mktemp("readme")
    for name in ("a", "middle", "b"):
        number = {"a": "first", "b": "last"}.get(name, name)
        Image.open(ROOT / "demo" / f"nano_{number}.png").save(place / f"{name}.png")
    (place / "Wan2.1-FLF2V-14B-720P").symlink_to(NANO, target_is_directory=True)
    transformer = weights.load_transformer(NANO)
    state = {name: value.contiguous() for name, value in transformer.state_dict().items()}
    sizes = f'{{"attention_head_dim": {transformer.config.head_dim}, "text_len": {transformer.config.text_len}}}'
    save_file(state, place / "flf2v.safetensors", {"config": sizes})
    save_file({k: v.contiguous() for k, v in weights.load_vae(NANO).state_dict().items()}, place / "vae.safetensors")
    stem, weight = "diffusion_model.blocks.0.ffn.0", state["blocks.0.ffn.0.weight"]
    pair = {
        f"{stem}.lora_A.weight": torch.ones(2, weight.shape[1]),
        f"{stem}.lora_B.weight": torch.zeros(len(weight), 2),
    }
    save_file(pair, place / "four_steps.safetensors")
    for name in ("high_noise", "low_noise"):
        shutil.copy(PAIR / f"{name}.safetensors", place)
    (place / "umt5.safetensors").symlink_to(NANO / "text_encoder", target_is_directory=True)
    (place / "clip_vision_h.safetensors").symlink_to(NANO / "image_encoder", target_is_directory=True)
    (place / "tokenizer").symlink_to(NANO / "tokenizer", target_is_directory=True)
    (place / "shots.csv").write_text("first,last,prompt\na.png,b.png,the sun sets\n")
    return place


@pytest.mark.parametrize("command", LOCAL)
def test_a_command_of_this_machine(command: str, folder: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    words = shlex.split(command)[3:]
    words += SMALL if words[0] in ("generate", "chain") else ()
    status = wan_local.cli.main(words)
    said = capsys.readouterr()
    if words[0] == "bench" and not torch.cuda.is_available():
        assert "bench times a GPU and torch sees none" in said.err
        return
    assert status == 0, said.err
    if "--output" in words:
        assert Path(words[words.index("--output") + 1]).stat().st_size > 0


@pytest.fixture(scope="module")
def cloud() -> Iterator[StandIn]:
    with StandIn() as running:
        running.always(GMI, "success")
        running.always(WAVESPEED, "completed")
        yield running


@pytest.mark.parametrize("command", REMOTE)
def test_a_command_of_a_cloud(command: str, folder: Path, cloud: StandIn, monkeypatch, capsys) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_DATA_HOME", str(folder / "state"))
    monkeypatch.setattr("wan_remote.session.Clock", Impatient)
    for name, value in cloud.environment.items():
        monkeypatch.setenv(name, value)
    words = shlex.split(command)[3:]
    assert wan_remote.cli.main(words) == 0, capsys.readouterr().err
    if "--output" in words:
        assert Path(words[words.index("--output") + 1]).exists()


@pytest.mark.parametrize("room", ["wan_local", "wan_remote"])
def test_the_program_is_the_one_that_the_page_names(room: str) -> None:
    done = subprocess.run([sys.executable, "-m", room, "--help"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0
    assert f"python -m {room}" in done.stdout


@pytest.mark.parametrize("room", ["wan_local", "wan_remote"])
def test_a_python_that_looks_into_no_folder_runs_it_by_its_path(room: str, tmp_path: Path) -> None:
    """As that of ComfyUI's portable build for Windows; what it tells to run has to run there, too."""
    by_path = [sys.executable, str(ROOT / room)]
    done = subprocess.run(
        [by_path[0], "-I", by_path[1], "--help"], cwd=tmp_path, capture_output=True, text=True, env={"COLUMNS": "1000"}
    )
    assert done.returncode == 0, done.stderr
    assert f"usage: {shlex.join(by_path)} [-h]" in done.stdout
