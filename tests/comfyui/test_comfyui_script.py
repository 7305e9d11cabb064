"""The script of docs/api.md that posts a graph, against a real ComfyUI, by its Python."""

from __future__ import annotations

import subprocess
from pathlib import Path

import av
import pytest
from comfy_server import PACK, ComfyServer, checkout, interpreter

SCRIPT = PACK / "docs" / "api" / "comfyui_queue.py"


# A host whose history is a second behind what it says on the socket.
LATE_HISTORY = """
import time, execution
done = execution.PromptQueue.task_done
def late(*arguments, **named):
    time.sleep(1)
    return done(*arguments, **named)
execution.PromptQueue.task_done = late
NODE_CLASS_MAPPINGS = {}
"""


def run(server: ComfyServer, *arguments: object) -> subprocess.CompletedProcess[str]:
    return run_at(f"http://127.0.0.1:{server.port}", *arguments)


def run_at(address: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [interpreter(checkout()), str(SCRIPT), *map(str, arguments), "--server", address, "--steps", "1"]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=180)


def test_it_uploads_follows_and_brings_the_mp4(server: ComfyServer, tmp_path: Path) -> None:
    first, last = (PACK / "demo" / f"nano_{name}.png" for name in ("first", "last"))
    done = run_at(f"127.0.0.1:{server.port}", first, last, 'say "hi"', tmp_path / "new" / "clip.mp4")
    assert done.returncode == 0, done.stderr
    assert " of " in done.stderr
    with av.open(str(tmp_path / "new" / "clip.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 33
    # ComfyUI has the result by now and is done at once: the socket was there before.
    again = run(server, first, last, 'say "hi"', tmp_path / "again.mp4")
    assert again.returncode == 0, again.stderr


def test_it_waits_for_a_history_that_comes_after_the_end_is_said(tmp_path: Path) -> None:
    first, last = (PACK / "demo" / f"nano_{name}.png" for name in ("first", "last"))
    plugins = tmp_path / "comfyui" / "custom_nodes"
    plugins.mkdir(parents=True)
    (plugins / "late_history.py").write_text(LATE_HISTORY, "utf-8")
    with ComfyServer(tmp_path / "comfyui") as late:
        done = run(late, first, last, "a circle", tmp_path / "clip.mp4")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "clip.mp4").stat().st_size > 0


def test_a_wrong_value_is_told_with_its_node(server: ComfyServer, tmp_path: Path) -> None:
    first = PACK / "demo" / "nano_first.png"
    done = run(server, first, first, "nothing", tmp_path / "clip.mp4", "--seed", -7)
    assert done.returncode == 1
    assert "node_errors" in done.stderr
    assert "seed" in done.stderr
    assert not (tmp_path / "clip.mp4").exists()


@pytest.mark.parametrize("missing", ["an image", "ComfyUI"])
def test_what_is_not_there_is_told_in_one_line(missing: str, tmp_path: Path) -> None:
    first = PACK / "demo" / "nano_first.png" if missing == "ComfyUI" else tmp_path / "none.png"
    done = run_at("http://127.0.0.1:9", first, first, "a circle", tmp_path / "clip.mp4")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
    assert ("127.0.0.1:9" if missing == "ComfyUI" else "none.png") in done.stderr
