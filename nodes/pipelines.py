"""A pipeline of what is connected to a node that makes whole clips."""

from __future__ import annotations

from typing import Any

from ..wan_local.errors import InputError
from ..wan_local.generate import Pipeline
from ..wan_local.longer import OVERLAP, PLAIN, WINDOW, Longer
from ..wan_local.settings import Settings
from . import widgets
from .progress import Reporter
from .sockets.clip import SocketTextEncoder
from .sockets.clip_vision import SocketImageEncoder
from .sockets.model import WanModel
from .sockets.vae import autoencoder

SHARES = {"encode text": 0.03, "encode images": 0.05, "sample": 0.84, "decode": 0.08}  # of the time, roughly


def settings_of(
    model: WanModel, length: int, longer: str = PLAIN, window: int = WINDOW, overlap: int = OVERLAP, **chosen: Any
) -> Settings:
    """The settings of clips of ``length`` frames.

    Args:
        model: as it is connected, which says what is approximated.
        length: of each clip.
        longer, window, overlap: of :func:`.widgets.longer`.
        chosen: other fields of :class:`Settings`, as the widgets give them.

    Raises:
        InputError: a value that can't be used.
    """
    way = Longer(way=longer, window=window, overlap=overlap)
    return Settings(length=length, longer=way, approximations=model.approximations, **chosen)


def pipeline_of(
    model: WanModel, clip: Any, vae: Any, clip_vision: Any, settings: Settings, *, has_ends: bool = True
) -> tuple[Pipeline, Reporter]:
    """The pipeline, and what shows its progress on the node.

    Args:
        model, clip, vae, clip_vision: as they are connected; None for a CLIP vision that is not.
        settings: of the clips, with their size.
        has_ends: whether an image is at the first or the last frame, where the image encoder looks.

    Raises:
        InputError: no image encoder for a model that needs one.
    """
    config = model.transformer.config
    if has_ends and clip_vision is None and config.has_image_branch:
        raise InputError("this model looks at the images through an image encoder; connect clip_vision")
    widgets.tell_of_mistaken_values(config, settings.guidance, settings.shift)
    pipeline = Pipeline(
        model.denoisers(settings.grid(settings.width, settings.height)),
        autoencoder(vae),
        SocketTextEncoder(clip),
        SocketImageEncoder(clip_vision) if clip_vision is not None else None,
        device=model.device,
    )
    return pipeline, Reporter(SHARES, model.device, pipeline.vae.config.latent_rgb)
