"""The ranks as the host sees them: a loaded model that it may unload. Run by ComfyUI's interpreter, in no server.

``python inside_model_on_gpus.py COMFYUI PACK`` prints what ``inside_comfyui.py`` does, of the checks below.
"""

from __future__ import annotations

import importlib
import json
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import inside_comfyui
from inside_checks import CHECKS, bundled, check

CHECKS.clear()  # those of the other files are run by the other tests
PACK = Path(__file__).resolve().parents[2]


def library(nodes: Any, name: str) -> Any:
    return importlib.import_module(f"{nodes.__package__.rpartition('.')[0]}.{name}")


def multi_model(nodes: Any) -> Any:
    multi = library(nodes, "nodes.sockets.model_on_gpus")
    setup = library(nodes, "wan_local.parallel.setup").Setup
    return multi.MultiModel(setup(path=str(PACK / "weights" / "nano"), gpus=2, device="cpu", dtype="float32"))


def sample(nodes: Any, model: Any) -> Any:
    """One step; the group of ranks that did it."""
    import torch

    sampling = library(nodes, "wan_local.sampling")
    config = model.transformer.config
    image = torch.zeros(1, config.image_tokens, config.image_dim) if config.has_image_branch else None
    text = torch.zeros(1, config.text_len, config.text_dim)
    sides = [sampling.Cond(condition=torch.zeros(1, 20, 1, 4, 4), text=text, image=image) for _ in range(2)]
    velocity = sampling.model_velocity(model.transformer, sides, 4.0)
    assert velocity(torch.zeros(1, 16, 1, 4, 4), 900.0).shape == (1, 16, 1, 4, 4)
    return model.transformer.start()


def small_model(nodes: Any) -> Any:
    import torch

    held = nodes.host.hold(torch.nn.Linear(8, 8), nodes.host.compute_device(), nodes.host.offload_device())
    nodes.host.load(held)
    return held


@check
def unloading_the_hosts_models_ends_the_ranks(nodes: Any) -> None:
    import comfy.model_management

    model = multi_model(nodes)
    first = sample(nodes, model)
    assert first.alive
    comfy.model_management.unload_all_models()
    assert not first.alive
    second = sample(nodes, model)
    assert second.alive
    comfy.model_management.unload_all_models()
    assert not second.alive


@check
def another_model_of_the_host_and_another_run_leave_the_ranks(nodes: Any) -> None:
    import comfy.model_management as management

    model = multi_model(nodes)
    group = sample(nodes, model)
    other = small_model(nodes)
    assert group.alive
    assert sample(nodes, model) is group
    loaded = [entry.model for entry in management.current_loaded_models]
    assert other not in loaded, "the host's own models are taken off the GPUs before every run"
    management.unload_all_models()


def in_another_thread(work: Any) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


@check
def one_clock_looks_at_the_time_however_often_it_is_asked(nodes: Any) -> None:
    multi = library(nodes, "nodes.sockets.model_on_gpus")
    made: list[float] = []
    rings: list[Any] = []  # what each timer calls
    closed: list[str] = []
    now = [0.0]

    def timer(seconds: float, function: Any) -> Any:
        made.append(seconds)
        rings.append(function)
        return mock.Mock()

    ranks = multi.Ranks()
    ranks.pool.close = lambda why: closed.append(why)
    with (
        mock.patch.object(multi, "time", mock.Mock(monotonic=lambda: now[0])),
        mock.patch.object(multi, "threading", mock.Mock(Timer=timer)),
    ):
        for second in range(300):
            now[0] = float(second)
            ranks.used()
        assert made == [multi.IDLE_SECONDS]
        now[0] = multi.IDLE_SECONDS  # the first timer rings; 299 was the last time that somebody asked
        rings[-1]()
        assert made[1:] == [299.0]
        assert not closed
        now[0] += 299.0
        with ranks.pool.lock.held(1.0):  # a step is under way that takes longer than all that
            in_another_thread(rings[-1])
        assert made[2:] == [multi.IDLE_SECONDS]
        assert not closed
        now[0] += multi.IDLE_SECONDS
        rings[-1]()
        assert len(closed) == 1
        ranks.used()
        assert len(made) == 4


@check
def ranks_that_will_not_end_are_no_error_of_the_host(nodes: Any) -> None:
    import comfy.model_management

    multi, errors = library(nodes, "nodes.sockets.model_on_gpus"), library(nodes, "wan_local.ranks")
    model = multi_model(nodes)
    group = sample(nodes, model)
    refused = errors.RankError("still there after 10 s: process [1]", stage="closing")
    with mock.patch.object(multi.RANKS.pool, "close", side_effect=refused):
        comfy.model_management.unload_all_models()
    multi.RANKS.pool.close()
    assert not group.alive


@check
def other_gpus_make_what_this_one_loaded(nodes: Any) -> None:
    for weight_dtype in ("default", "bf16", "fp32"):
        model = nodes.loading.load_model(bundled(nodes), weight_dtype, "sdpa", compiled=True)
        made = model.setup
        assert f"torch.{made.dtype}" == str(model.transformer.compute_dtype)
        assert (made.path, made.attention, made.compiled) == (str(bundled(nodes)), "sdpa", True)
        assert made.unpack == (weight_dtype != "default")
        on_gpus = library(nodes, "nodes.sockets.model_on_gpus").MultiModel(replace(made, gpus=2, ulysses=2))
        assert on_gpus.named == model.named, "clips of a chain that are kept would be made again"


@check
def gpus_that_are_hidden_are_named_with_what_hides_them(nodes: Any) -> None:
    node = library(nodes, "nodes.multi_gpu")
    with mock.patch.dict("os.environ", {"CUDA_VISIBLE_DEVICES": "0"}):
        assert "CUDA_VISIBLE_DEVICES=0 shows it only those: start ComfyUI with --cuda-device" in node.hidden_gpus()
    with mock.patch.dict("os.environ"):
        node.os.environ.pop("CUDA_VISIBLE_DEVICES", None)
        assert node.hidden_gpus() == ""


if __name__ == "__main__":
    json.dump(inside_comfyui.main(*sys.argv[1:]), sys.stdout)
