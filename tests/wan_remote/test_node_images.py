"""What a cloud node is given, checked before anything is paid."""

from __future__ import annotations

import asyncio
import json
from functools import partial
from types import SimpleNamespace

import pytest
import torch

from tests.wan_remote.fault_case import GMI, WAVESPEED
from tests.wan_remote.node_room import room

ONE = torch.full((1, 8, 8, 3), 0.5)
GIVEN = {
    "WanFLF2VGMI": {"prompt": "p", "video_length": 5, "prompt_extend": False, "seed": 7},
    "WanFLF2VWaveSpeed": {
        "prompt": "p", "negative_prompt": "", "duration": 5, "size": "832*480", "num_inference_steps": 30,
        "guidance_scale": 5.0, "seed": 7, "enable_safety_checker": True,
    },
}  # fmt: skip
MODULE = {"WanFLF2VGMI": "nodes.gmi", "WanFLF2VWaveSpeed": "nodes.wavespeed"}


def execute(made, first_image=ONE, last_image=ONE, **given):
    """The node as the host runs it where each input is there once."""
    inputs = {"first_image": first_image, "last_image": last_image, **given}
    return asyncio.run(made.execute(**{name: [value] for name, value in inputs.items()}))


@pytest.fixture
def node(tmp_path):
    with room(tmp_path) as made:
        yield made


@pytest.mark.parametrize("name", ["first_image", "last_image"])
@pytest.mark.parametrize("kind", list(GIVEN))
def test_a_batch_is_refused_before_anything_is_sent(world, node, kind, name):
    images = {"first_image": ONE, "last_image": ONE, name: ONE.repeat(3, 1, 1, 1)}
    made = getattr(node.part(MODULE[kind]), kind)
    with pytest.raises(node.part("wan_remote.errors").InvalidRequest) as told:
        execute(made, **images, **GIVEN[kind])
    assert str(told.value) == (
        f"{name} is a batch of 3 images, which would be 3 clips to pay for; give one image, such as by core's "
        "ImageFromBatch, or a list if you want a clip of each"
    )
    assert world.cloud.records() == []


@pytest.mark.parametrize("kind", list(GIVEN))
def test_single_images_become_a_clip(world, node, kind):
    provider, done = {"WanFLF2VGMI": (GMI, "success"), "WanFLF2VWaveSpeed": (WAVESPEED, "completed")}[kind]
    world.cloud.plan(provider, {"status": done, "at_submit": True})
    made = getattr(node.part(MODULE[kind]), kind)
    [frames], [path], [request_id] = execute(made, **GIVEN[kind]).values
    assert tuple(frames.shape) == (81, 72, 128, 3)
    assert (path.stem, world.cloud.accepted()) == (request_id, 1)


@pytest.mark.parametrize("kind", list(GIVEN))
def test_another_take_of_a_fixed_seed_is_made_with_a_notice(world, node, kind):
    world.cloud.always(GMI, {"status": "success", "at_submit": True})
    world.cloud.always(WAVESPEED, {"status": "completed", "at_submit": True})
    made = getattr(node.part(MODULE[kind]), kind)
    execute(made, **GIVEN[kind])
    execute(made, **{**GIVEN[kind], "seed": -1}, take=2)
    assert node.notices == []
    execute(made, **GIVEN[kind], take=2)
    assert node.notices == [
        "take 2 of seed=7 asks the cloud for the same clip as take 1 and is paid for apart; for another clip change "
        "the seed, or leave it at -1, which draws another for each take"
    ]
    assert world.cloud.accepted() == 3


def test_a_full_disk_takes_the_view_of_the_ends_and_not_the_paid_clip(world, node, monkeypatch):
    def full(image):
        raise OSError("No space left on device")

    world.cloud.plan(GMI, {"status": "success", "at_submit": True})
    made = node.part("nodes.gmi").WanFLF2VGMI
    monkeypatch.setattr(node.part("nodes.ends_view").host, "temporary_image", full)
    done = execute(made, **GIVEN["WanFLF2VGMI"])
    assert done.values[0][0].shape[0] == 81
    assert done.ui["wan_flf2v_ends"] == []


@pytest.mark.parametrize("kind", list(GIVEN))
@pytest.mark.parametrize("saved", [True, False], ids=["editor", "API queue"])
def test_the_graph_and_the_take_come_with_the_job(world, node, monkeypatch, kind, saved):
    world.cloud.always(GMI, "success")
    world.cloud.always(WAVESPEED, "completed")
    made = getattr(node.part(MODULE[kind]), kind)
    workflow, prompt = {"nodes": [{"type": kind}]}, {"7": {"class_type": kind}}
    extra = {"workflow": workflow} if saved else None
    monkeypatch.setattr(made, "hidden", SimpleNamespace(prompt=prompt, extra_pnginfo=extra), raising=False)
    remote = node.part("nodes.cloud_run")
    monkeypatch.setattr(remote, "run_all", partial(remote.run_all, clock=world.clock))
    execute(made, **GIVEN[kind], take=4)
    [entry] = node.folder.rglob("jobs/*.json")
    assert json.loads(entry.read_text())["take"] == 4
    assert json.loads(entry.with_suffix(".graph").read_text()) == (workflow if saved else prompt)
