"""Checks that need ComfyUI's own modules; run by ComfyUI's interpreter, in no server.

``python inside_comfyui.py COMFYUI PACK`` prints one JSON object: each check's name, what failed or null, and what was
measured, beginning with the seconds it took.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import logging
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import inside_decode  # noqa: F401  (puts its checks in the table)
import inside_formats  # noqa: F401  (likewise)
import inside_loras  # noqa: F401  (likewise)
import inside_models  # noqa: F401  (likewise)
import inside_packed  # noqa: F401  (likewise)
import inside_video  # noqa: F401  (likewise)
from inside_checks import CHECKS, Check, check


@check
def half_precision_images_are_taken(nodes: Any) -> None:
    import torch

    image = torch.rand(1, 9, 7, 3)
    got = nodes.sockets.image.one_image(image.half(), "first_image")
    assert got.dtype == torch.float32
    assert got.shape == (3, 9, 7)
    assert (got - image[0].movedim(-1, 0)).abs().max() < 1e-3


@check
def transparency_is_laid_over_black(nodes: Any) -> None:
    import torch

    image = torch.ones(1, 4, 4, 4)
    image[..., 3] = 0.25
    got = nodes.sockets.image.one_image(image, "first_image")
    assert got.shape == (3, 4, 4)
    assert torch.allclose(got, torch.full_like(got, 0.25))


@check
def the_first_image_of_a_batch_is_used_and_the_log_says_so(nodes: Any) -> None:
    import torch

    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    nodes.host.log.addHandler(handler)
    batch = torch.stack([torch.full((4, 4, 3), value) for value in (0.1, 0.9)])
    got = nodes.sockets.image.one_image(batch, "last_image")
    nodes.host.log.removeHandler(handler)
    assert torch.allclose(got, torch.full_like(got, 0.1))
    assert lines == ["last_image is a batch of 2 images; the first one is used"]


@check
def values_that_are_no_numbers_are_refused_by_name(nodes: Any) -> None:
    import torch

    image = torch.rand(1, 4, 4, 3)
    image[0, 1, 1, 1] = float("nan")
    message = ""
    try:
        nodes.sockets.image.one_image(image, "last_image")
    except ValueError as error:
        message = str(error)
    assert "last_image" in message
    assert "\n" not in message


@check
def values_that_overshoot_are_clamped(nodes: Any) -> None:
    import torch

    got = nodes.sockets.image.one_image(torch.tensor([-0.5, 0.5, 1.5]).expand(1, 2, 2, 3), "first_image")
    assert got[:, 0, 0].tolist() == [0.0, 0.5, 1.0]


@check
def layers_have_their_parameters_with_dynamic_vram_too(nodes: Any) -> None:
    import torch

    try:
        memory = importlib.import_module("comfy.memory_management")
    except ImportError:
        return  # before dynamic VRAM
    before, memory.aimdo_enabled = memory.aimdo_enabled, True
    try:
        with torch.device("meta"):
            layer = nodes.host.Operations.Linear(2, 3)
        assert {name: tuple(value.shape) for name, value in layer.state_dict().items()} == {
            "weight": (3, 2),
            "bias": (3,),
        }
        layer.load_state_dict({"weight": torch.ones(3, 2).half(), "bias": torch.zeros(3).half()}, assign=True)
        assert layer(torch.ones(1, 2)).tolist() == [[2.0, 2.0, 2.0]]
    finally:
        memory.aimdo_enabled = before


@check
def layers_calculate_in_the_dtype_of_their_input(nodes: Any) -> None:
    import torch

    operations = nodes.host.Operations
    layers = {
        "Linear": (operations.Linear(4, 4), (2, 4)),
        "LayerNorm": (operations.LayerNorm(4), (2, 4)),
        "RMSNorm": (operations.RMSNorm(4), (2, 4)),
        "Conv2d": (operations.Conv2d(4, 4, 1), (1, 4, 2, 2)),
        "Conv3d": (operations.Conv3d(4, 4, 1), (1, 4, 1, 2, 2)),
    }
    for name, (layer, shape) in layers.items():
        for stored in (torch.float16, torch.bfloat16):
            layer.to(stored)
            assert layer(torch.zeros(shape)).dtype == torch.float32, (name, stored)


@check
def a_name_outside_the_model_folders_is_no_pipeline(nodes: Any) -> None:
    for name in nodes.host.pipeline_folders():
        assert ".." not in name
        assert not name.startswith("/")


def main(comfyui: str, pack: str) -> dict[str, list[str | None]]:
    sys.argv = [sys.argv[0], "--cpu"]
    sys.path.insert(0, comfyui)
    importlib.import_module("comfy.options").enable_args_parsing()
    # As ComfyUI imports a pack: under a name that is no package name, found by its file.
    spec = importlib.util.spec_from_file_location("pack_under_test", Path(pack, "__init__.py"))
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    nodes = importlib.import_module("pack_under_test.nodes")
    return {name: outcome(function, nodes) for name, function in CHECKS.items()}


def outcome(function: Check, nodes: Any) -> list[str | None]:
    began, failed, measured = time.perf_counter(), None, None
    try:
        measured = function(nodes)
    except Exception:  # all of them, to report which check failed and why
        failed = traceback.format_exc(limit=-3)
    seconds = f"{time.perf_counter() - began:.1f} s"
    return [failed, f"{seconds}, {measured}" if measured else seconds]


if __name__ == "__main__":
    json.dump(main(*sys.argv[1:]), sys.stdout)
