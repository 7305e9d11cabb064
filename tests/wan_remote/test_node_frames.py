"""The frames that a cloud node reads from its file: they take long, and stop counts all the while."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest

from tests.wan_remote.node_room import Stopped, room
from tests.wan_remote.stand_in import clips


@pytest.fixture
def node(tmp_path):
    with room(tmp_path) as made:
        yield made


@pytest.fixture
def result(node, tmp_path):
    path = tmp_path / "clip.mp4"
    path.write_bytes(clips.clip(81))
    made = node.part("wan_remote").Result
    return made(
        path=path, provider="gmi", request_id="gm-1", seed=7, drawn=False, take=1, resumed=False, seconds=1.0,
        price=None, note="", sha256="", size=1,
    )  # fmt: skip


def slow(node, monkeypatch, seconds: float) -> list[float]:
    """Each frame takes so long, as a large one does; when each was read."""
    video, moments = node.part("wan_local.video"), []
    real = video.read

    def read(path, before_frame):
        def slowly():
            before_frame()
            time.sleep(seconds)
            moments.append(time.monotonic())

        return real(path, slowly)

    monkeypatch.setattr(video, "read", read)
    return moments


def test_all_frames_come_out(node, result):
    frames, file = asyncio.run(node.part("nodes.cloud_run").shown(result)).values
    assert tuple(frames.shape) == (81, 72, 128, 3)
    assert file == result.path
    assert node.texts[-1] == "81 frames of 128x72, 5.06 s at 16 fps\ngm-1\nseed 7\nmade in 1.0 s"


def test_a_drawn_seed_and_what_is_odd_are_shown(node, result):
    drawn = replace(result, drawn=True, resumed=True, note="the clip is 64x64")
    asyncio.run(node.part("nodes.cloud_run").shown(drawn))
    assert node.texts[-1] == (
        "81 frames of 128x72, 5.06 s at 16 fps\ngm-1, not paid for again\nseed 7 (drawn for -1: the same inputs and "
        "take give this clip, another take another)\nmade in 1.0 s\nthe clip is 64x64"
    )


@pytest.mark.parametrize("how", ["stop", "cancel"])
def test_a_stop_while_frames_are_read_ends_the_prompt_at_once(node, result, monkeypatch, how):
    """The host runs one event loop a prompt: whatever its threads still do holds the end of it up."""
    moments = slow(node, monkeypatch, 0.1)  # 8 seconds for the clip
    at = [0.0]

    async def prompt():
        task = asyncio.ensure_future(node.part("nodes.cloud_run").shown(result))
        while not moments:
            await asyncio.sleep(0.01)
        at[0] = time.monotonic()
        node.stop.set() if how == "stop" else task.cancel()
        await task

    with pytest.raises(Stopped if how == "stop" else asyncio.CancelledError):
        asyncio.run(prompt())
    assert time.monotonic() - at[0] < 4.0
    time.sleep(0.3)
    assert time.monotonic() - moments[-1] > 0.15  # nobody goes on with it


def test_the_clips_of_a_list_are_read_one_after_the_other_and_told_a_line_each(node, result):
    remote = node.part("nodes.cloud_run")
    given = asyncio.run(remote.all_shown([result, replace(result, request_id="gm-2", resumed=True)])).values
    assert [len(row) for row in given] == [2, 2, 2]
    assert given[2] == ["gm-1", "gm-2"]
    assert "reading the frames of the video (2 of 2)" in node.texts
    first, second = node.texts[-1].splitlines()
    assert first.startswith("1: 81 frames of 128x72, ")
    assert second.endswith("gm-2, not paid for again; seed 7; made in 1.0 s")


def test_frames_of_a_list_that_do_not_fit_are_not_begun(node, result):
    remote = node.part("nodes.cloud_run")
    remote.host.room_for_results = lambda: 2 * 81 * 128 * 72 * 12 - 1
    with pytest.raises(node.part("wan_remote.errors").StorageError) as told:
        asyncio.run(remote.all_shown([result, result]))
    assert str(told.value).startswith(f"all 2 clips are here, in {result.path.parent}; their frames take 0.0 GiB")
    asyncio.run(remote.all_shown([result]))
