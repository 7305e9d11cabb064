"""The script of docs/api.md that posts a graph, against a real ComfyUI, by its Python."""

from __future__ import annotations

import subprocess
from pathlib import Path

import av
from comfy_server import PACK, ComfyServer, checkout, interpreter

SCRIPT = PACK / "docs" / "api" / "comfyui_queue.py"


def run(server: ComfyServer, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [interpreter(checkout()), str(SCRIPT), *map(str, arguments)]
    command += ["--server", f"http://127.0.0.1:{server.port}", "--steps", "1"]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=180)


def test_it_uploads_follows_and_brings_the_mp4(server: ComfyServer, tmp_path: Path) -> None:
    first, last = (PACK / "demo" / f"nano_{name}.png" for name in ("first", "last"))
    done = run(server, first, last, 'say "hi"', tmp_path / "clip.mp4")
    assert done.returncode == 0, done.stderr
    assert " of " in done.stderr
    with av.open(str(tmp_path / "clip.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 17
    # ComfyUI has the result by now and says success at once: the socket was there before.
    again = run(server, first, last, 'say "hi"', tmp_path / "again.mp4")
    assert again.returncode == 0, again.stderr


def test_a_wrong_value_is_told_with_its_node(server: ComfyServer, tmp_path: Path) -> None:
    first = PACK / "demo" / "nano_first.png"
    done = run(server, first, first, "nothing", tmp_path / "clip.mp4", "--seed", -7)
    assert done.returncode == 1
    assert "node_errors" in done.stderr
    assert "seed" in done.stderr
    assert not (tmp_path / "clip.mp4").exists()
