"""What can't be is refused before a model is unloaded or a process started; what ranks are kept for."""

from __future__ import annotations

import importlib.util
import os
import platform
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from wan_local import attention
from wan_local.errors import InputError, UnreadableWeights, WanError
from wan_local.parallel import fsdp, ring, setup
from wan_local.parallel.degrees import Degrees
from wan_local.parallel.group_model import GroupTransformer
from wan_local.parallel.setup import Setup, TooFewGPUs, devices
from wan_local.ranks import Pool, RankGroup


@pytest.fixture
def base(folder: Path) -> Setup:
    return Setup(path=str(folder / "model.safetensors"), gpus=2, device="cpu", dtype="float32")


@pytest.fixture
def nothing_starts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    started: list[object] = []
    monkeypatch.setattr(RankGroup, "start", lambda group, stop=None: started.append(group))
    yield
    assert not started


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"loras": (("nowhere.safetensors", 1.0),)}, "nowhere.safetensors is not there; check the path of the LoRA"),
        ({"attention": "bogus"}, "attention='bogus' is not known; use auto or one of"),
        ({"attention": "bogus", "ray_address": "10.0.0.1:6379"}, "attention='bogus' is not known"),
        ({"attention": "sage"}, "attention='sage' can't be used here: it needs an NVIDIA GPU"),
        ({"dtype": "None"}, "dtype='None' can't be used on several GPUs; use float32, bfloat16, float16"),
        ({"ray_address": "10.0.0.1"}, "ray address '10.0.0.1'; use host:port of the head node"),
        ({"backend": "xfuser"}, "backend='xfuser' can't be used here"),
        ({"gpus": 4000}, "gpus=4000 can't be used: this runs on the CPU, since torch sees no CUDA GPU; use "),
        ({"device": "mps"}, "device='mps' can't be used for several GPUs, only CUDA"),
        ({"device": "xpu", "gpus": 1}, "device='xpu' can't be used for several GPUs, only CUDA"),
    ],
)
@pytest.mark.usefixtures("nothing_starts")
def test_refused_at_once(base: Setup, change: dict[str, Any], match: str) -> None:
    if change.get("attention") == "sage" and torch.cuda.is_available():
        pytest.skip("this machine has a GPU, where the kernel may be installed")
    with pytest.raises(WanError, match=match) as caught:
        GroupTransformer(replace(base, **change), Pool(), before_run=lambda: pytest.fail("made room for nothing"))
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("nothing_starts")
def test_what_fsdp_can_not_shard_is_refused_at_once(
    base: Setup, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = replace(base, path=str(folder / "float8.safetensors"), fsdp=True)
    with pytest.raises(InputError, match=r"float8.safetensors holds packed weights .* run it without fsdp"):
        GroupTransformer(packed, Pool())
    save_file(
        {f"diffusion_model.blocks.0.ffn.0.lora_{side}.weight": torch.zeros(shape)
         for side, shape in (("A", (2, 96)), ("B", (128, 2)))},
        tmp_path / "lora.safetensors",
    )  # fmt: skip
    with pytest.raises(InputError, match="LoRAs can't be put on weights that fsdp shards"):
        GroupTransformer(replace(base, fsdp=True, loras=((str(tmp_path / "lora.safetensors"), 1.0),)), Pool())
    GroupTransformer(replace(base, loras=((str(tmp_path / "lora.safetensors"), 1.0),)), Pool())
    monkeypatch.setattr(platform, "system", lambda: "Windows")
    with pytest.raises(InputError, match="fsdp needs NCCL, which Windows does not have"):
        GroupTransformer(replace(base, fsdp=True, device="cuda"), Pool())
    monkeypatch.setattr(fsdp, "works_on_cpu", lambda: False)
    with pytest.raises(InputError, match=r"fsdp on the CPU needs torch 2\.6, and this is .*; run without fsdp"):
        GroupTransformer(replace(base, fsdp=True), Pool())


@pytest.mark.usefixtures("nothing_starts")
def test_a_lora_for_another_model_is_refused_at_once(base: Setup, tmp_path: Path) -> None:
    (tmp_path / "torn.safetensors").write_bytes(b"nothing")
    with pytest.raises(UnreadableWeights):
        GroupTransformer(replace(base, loras=((str(tmp_path / "torn.safetensors"), 1.0),)), Pool())


@pytest.mark.usefixtures("nothing_starts")
def test_a_torch_without_its_distributed_part_is_told_at_once(base: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.distributed, "is_available", lambda: False)
    with pytest.raises(InputError, match=r"several GPUs can't be used by this torch .*; use one GPU, or a torch that"):
        GroupTransformer(base, Pool())


@pytest.mark.usefixtures("nothing_starts")
def test_ray_that_is_not_there_is_told_at_once(base: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    there = importlib.util.find_spec
    asked = replace(base, ray_address="10.0.0.1:6379")
    with monkeypatch.context() as patch:
        patch.setattr(importlib.util, "find_spec", lambda name: None if name == "ray" else there(name))
        with pytest.raises(InputError, match="Ray is not installed in this Python; install it with: python -m pip"):
            GroupTransformer(asked, Pool())
    monkeypatch.setattr(platform, "system", lambda: "Windows")
    with pytest.raises(InputError, match="Ray can't be used on Windows; leave its address empty"):
        GroupTransformer(asked, Pool())


@pytest.fixture
def with_sage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention.BACKENDS["sage"], "why_not", lambda: None)


@pytest.mark.usefixtures("nothing_starts", "with_sage")
def test_a_ring_never_takes_another_kernel_silently(base: Setup) -> None:
    named = replace(base, attention="sage", cfg=1)
    with pytest.raises(InputError, match="attention='sage' can't be used with cfg 1 x ulysses 1 x ring 2: it gives no"):
        GroupTransformer(replace(named, ring=2), Pool())
    GroupTransformer(replace(named, ulysses=2), Pool())
    for name in ring.KERNELS:
        GroupTransformer(replace(named, attention=name, ring=2), Pool())
    with pytest.raises(InputError, match="which a ring needs"):
        ring.check_attention("flash", Degrees(ring=2))


@pytest.mark.parametrize(
    ("device", "capability", "dtype", "expected"),
    [
        ("cpu", None, torch.bfloat16, "cpu"),
        ("cuda", (9, 0), torch.bfloat16, "flash"),
        ("cuda", (8, 0), torch.float16, "flash"),
        ("cuda", (9, 0), torch.float32, "efficient"),
        ("cuda", (7, 5), torch.float16, "efficient"),
        ("cuda", (7, 5), torch.bfloat16, "efficient in float32"),
        ("cuda", (7, 5), torch.float32, "efficient"),
    ],
)
def test_the_kernel_of_a_ring_is_one_that_the_gpu_has(monkeypatch, device, capability, dtype, expected) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert ring.kernel_for(torch.device(device), dtype) == expected


def test_a_ring_on_another_device_is_refused() -> None:
    with pytest.raises(InputError, match="ring attention can't run on meta; use ring=1"):
        ring.kernel_for(torch.device("meta"), torch.float32)


def test_paths_are_absolute_since_ranks_have_a_folder_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    made = Setup(path="models/wan", gpus=2, loras=(("loras/a.safetensors", 0.5),))
    assert made.path == os.path.abspath("/models/wan")
    assert made.loras == ((os.path.abspath("/loras/a.safetensors"), 0.5),)


def test_ranks_are_kept_for_another_split_and_no_other_change(base: Setup, tmp_path: Path) -> None:
    assert {replace(base, **change).key() for change in ({}, {"cfg": 2}, {"cfg": 1, "ulysses": 2})} == {base.key()}
    for change in ({"gpus": 4}, {"fsdp": True}, {"dtype": "bfloat16"}, {"attention": "sdpa"}, {"backend": "yunchang"}):
        assert replace(base, **change).key() != base.key(), change


def test_what_only_says_where_it_runs_is_none_of_the_frames(base: Setup) -> None:
    places = ({"gpus": 4}, {"ulysses": 2}, {"ring": 2}, {"cfg": 2}, {"fsdp": True}, {"ray_address": "local"})
    assert {replace(base, **place).on_one_gpu() for place in places} == {base.on_one_gpu()}
    assert replace(base, dtype="bfloat16").on_one_gpu() != base.on_one_gpu()


@pytest.mark.parametrize("name", ["a.safetensors", "sub/config.json", "b.pth", "c.gguf"])
def test_a_folder_in_which_a_file_has_changed_is_another_model(tmp_path: Path, name: str) -> None:
    (tmp_path / "sub").mkdir()
    made = Setup(path=str(tmp_path), gpus=2)
    (tmp_path / name).write_bytes(b"one")
    before = made.key()
    assert made.key() == before
    (tmp_path / name).write_bytes(b"another")
    assert made.key() != before


def test_more_gpus_than_there_are(base: Setup) -> None:
    there = torch.cuda.device_count()
    with pytest.raises(TooFewGPUs, match=rf"cuda:{there} is asked for .*, but torch sees {there} CUDA"):
        devices(replace(base, device="cuda", gpus=there + 1))
    assert devices(replace(base, device="cuda", gpus=3, ray_address="10.0.0.1:6379")) == ("cuda",) * 3
    assert devices(replace(base, gpus=setup.FEW)) == ("cpu",) * setup.FEW
    assert "this runs on the CPU" in GroupTransformer(base, Pool()).why
