"""Where models work and wait. The host's memory management brings them there and takes them off again."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import comfy.hooks
import comfy.model_management as management
import comfy.model_patcher
import torch


def compute_device() -> torch.device:
    return management.get_torch_device()


def device_name(device: torch.device) -> str:
    """What people call it: "NVIDIA H100 80GB HBM3", or "CPU"."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type.upper()


def total_memory(device: torch.device) -> int:
    """Bytes that the device has, of a CPU the machine's."""
    return int(management.get_total_memory(device))


def offload_device() -> torch.device:
    return management.unet_offload_device()


def encoder_devices() -> tuple[torch.device, torch.device]:
    """Where text and image encoders run, and where they wait."""
    return management.text_encoder_device(), management.text_encoder_offload_device()


def vae_devices() -> tuple[torch.device, torch.device]:
    """Where a VAE runs, and where it waits."""
    return management.vae_device(), management.vae_offload_device()


def result_device() -> torch.device:
    """Where results are handed to the next node."""
    return management.intermediate_device()


def room_for_results() -> int:
    """Bytes that are free where results lie."""
    return int(management.get_free_memory(result_device()))


def compute_dtype(stored: torch.dtype | None, device: torch.device) -> torch.dtype:
    """What to calculate in on ``device`` with weights stored as ``stored``; None for weights that say nothing of it,
    which the host then chooses as for its own; the user's ``--fp32-unet`` and the like count."""
    order = [torch.bfloat16, torch.float16, torch.float32]
    if stored is None:
        stored = management.unet_dtype(device, supported_dtypes=order, weight_dtype=torch.float32)
    found = management.unet_manual_cast(stored, device, order) or stored
    return found if found in order else torch.float32


def decode_dtype(device: torch.device) -> torch.dtype:
    """What a VAE decodes in; the user's ``--fp32-vae`` and the like count."""
    return management.vae_dtype(device, [torch.bfloat16, torch.float16, torch.float32])


def hold(module: torch.nn.Module, load_device: torch.device, offload: torch.device) -> Any:
    """Give ``module`` to the host's memory management; keep the patcher for as long as the module.

    The host replaces ``CoreModelPatcher`` at start-up and old ones have none, so it is looked up here and
    now.
    """
    patcher = getattr(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcher)
    return patcher(module, load_device=load_device, offload_device=offload)


def is_dynamic(patcher: Any) -> bool:
    """Whether a model of :func:`hold` may be on the GPU in part, page by page; none is in old hosts."""
    told = getattr(patcher, "is_dynamic", None)
    return told is not None and bool(told())


def load(patcher: Any, activations: int = 0, *, whole: bool = False, beside: Iterable[Any] = ()) -> None:
    """Bring a model to its device with room for ``activations`` bytes; call it before every use.

    Args:
        patcher: from :func:`hold`.
        activations: bytes the calculation itself needs.
        whole: for modules with layers that are not :func:`operations`, which can't run half loaded.
        beside: patchers of what it calculates with besides its own weights.
    """
    management.load_models_gpu([patcher, *beside], memory_required=activations, force_full_load=whole)


def unload(patcher: Any) -> None:
    """Take a model of :func:`hold` off its device, wholly."""
    for loaded in list(management.current_loaded_models):
        if loaded.model is not None and loaded.model.model is patcher.model:
            loaded.model_unload()
            management.current_loaded_models.remove(loaded)


def room_beside(patcher: Any) -> int:
    """Bytes that work with a model of :func:`hold` may take once everything else has been evicted for it."""
    device = patcher.load_device
    free = management.get_free_memory(device)
    if device.type == "cpu":
        return free
    models = [loaded for loaded in management.current_loaded_models if loaded.device == device and loaded.model]
    evicted = sum(loaded.model_loaded_memory() for loaded in models)
    return int(free + evicted - patcher.model_size() - management.extra_reserved_memory())


def make_room(size: int, device: torch.device) -> None:
    """Have the host take models off a GPU until ``size`` bytes are free there."""
    if device.type != "cpu":
        management.free_memory(size, device)


def is_out_of_memory(error: BaseException) -> bool:
    told = getattr(management, "is_oom", None)  # knows more kinds, later than 0.8.0
    return told(error) if told else isinstance(error, management.OOM_EXCEPTION)


def free_everything() -> None:
    """Take every model off the device: for processes of ours that are about to use it, or after it was full."""
    management.unload_all_models()
    management.soft_empty_cache()


def minimal_vram_hooks(patcher: Any) -> None:
    """Mark a patcher as a text encoder's, the way core's own CLIP does."""
    patcher.hook_mode = comfy.hooks.EnumHookMode.MinVram
    patcher.is_clip = True
