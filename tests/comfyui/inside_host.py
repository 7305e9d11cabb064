"""What the pack asks of ComfyUI that no socket carries: layers and folders; inside ComfyUI's interpreter."""

from __future__ import annotations

import importlib
from typing import Any

from inside_checks import check


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


@check
def our_folders_are_known_once_the_nodes_are_listed(nodes: Any) -> None:
    """On every version: some call nothing but what lists the nodes."""
    import asyncio

    import folder_paths

    for listed in ("wan_flf2v", "wan_flf2v_gguf"):
        folder_paths.folder_names_and_paths.pop(listed, None)
    asyncio.run(nodes.Extension().get_node_list())
    assert folder_paths.get_folder_paths("wan_flf2v")
    assert folder_paths.get_folder_paths("wan_flf2v_gguf") == folder_paths.get_folder_paths("diffusion_models")
