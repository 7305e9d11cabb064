"""What the person in front of the graph sees of a run: bar, text, preview; and their stop button."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Any

import comfy.latent_formats
import comfy.model_management as management
import comfy.utils
import latent_preview
import torch
from comfy_execution.utils import get_executing_context

Stopped = management.InterruptProcessingException
"""What the host raises, and expects to be raised, when the user pressed stop."""

log = logging.getLogger("WanFLF2V")


def stop_if_asked() -> None:
    """Raise the host's own interruption if the user pressed stop."""
    management.throw_exception_if_processing_interrupted()


def stop_asked() -> bool:
    """Whether the user pressed stop. Only looks: whoever ends the run for it raises :data:`Stopped`."""
    return management.processing_interrupted()


def is_failure(error: BaseException) -> bool:
    """Whether it went wrong, and was not stopped: the stop is an ``Exception`` too in ComfyUI 0.8.0, and later none."""
    return isinstance(error, Exception) and not isinstance(error, Stopped)


def stop_between_layers(network: torch.nn.Module) -> None:
    """Make each of a network's stacked layers ask first whether the user pressed stop: the whole takes long."""
    for stack in network.modules():
        if isinstance(stack, torch.nn.ModuleList | torch.nn.Sequential):
            for layer in stack:
                if any(layer.children()):  # one matrix product is short enough
                    layer.register_forward_pre_hook(_stop_hook)


def _stop_hook(layer: torch.nn.Module, inputs: Any) -> None:
    stop_if_asked()


def running_node() -> str | None:
    """The id of the node that runs here; threads of one's own do not know it."""
    context = get_executing_context()
    return None if context is None else context.node_id


def progress_bar(total: int, node: str | None = None) -> Callable[[int, Any], None]:
    """``show(done, preview)`` for a node, by default the running one; ``preview`` is :func:`previewer`'s, or None."""
    bar = comfy.utils.ProgressBar(total, node_id=node)
    return lambda done, preview: bar.update_absolute(done, total, preview)


def show_text(text: str, node: str | None = None) -> None:
    """A line on a node, by default the running one; nothing where none runs or the host can't show one."""
    module = sys.modules.get("server")  # never imported from here: outside a running server there is none
    node, server = node or running_node(), getattr(getattr(module, "PromptServer", None), "instance", None)
    context = get_executing_context()
    told = _notices.get((context.prompt_id, node), []) if context is not None and node is not None else []
    text = "\n".join([text, *told] if text else told)
    if node is not None and server is not None and hasattr(server, "send_progress_text"):
        server.send_progress_text(text, node)


_notices: dict[tuple[str, str], list[str]] = {}  # prompt and node to what was told while the node ran


def notify(text: str) -> None:
    """A notice on the log, and on the running node, where it stays below whatever the node shows in this run."""
    log.warning("%s", text)
    context = get_executing_context()
    if context is None:
        return
    for key in [key for key in _notices if key[0] != context.prompt_id]:
        del _notices[key]
    _notices.setdefault((context.prompt_id, context.node_id), []).append(text)
    show_text("", context.node_id)


def previewer(device: torch.device) -> Callable[[torch.Tensor], Any] | None:
    """From latents ``[B, 16, 1, h, w]`` in model space to a preview; None where the user wants none."""
    found = latent_preview.get_previewer(device, comfy.latent_formats.Wan21())
    return None if found is None else lambda latents: found.decode_latent_to_preview_image("JPEG", latents)
