"""The user's stop button."""

from __future__ import annotations

import comfy.model_management as management
import torch

Stopped = management.InterruptProcessingException
"""What the host raises, and expects to be raised, when the user pressed stop."""


def stop_if_asked() -> None:
    """Raise :data:`Stopped` if the user pressed stop."""
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
                    layer.register_forward_pre_hook(lambda layer, inputs: stop_if_asked())
