"""A pipeline folder's image encoder as core's CLIP_VISION socket: what core CLIPVisionEncode calls."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ..wan_local.encoders.image import ImageEncoder
from . import convert, host


class PipelineCLIPVision:
    """The image encoder of a pipeline folder, in the host's care."""

    def __init__(self, encoder: ImageEncoder) -> None:
        host.stop_between_layers(encoder.model)
        self.encoder = encoder
        self.model = Boxed(encoder.model)
        self.load_device, offload = host.encoder_devices()
        self.patcher = host.hold(self.model, self.load_device, offload)

    def get_models(self) -> list[Any]:
        return [self.patcher]

    def encode_image(self, image: Tensor, crop: bool | str = True) -> Any:
        """Encode pictures.

        Args:
            image: IMAGE ``[B, H, W, C]``.
            crop: True or "center" cuts the largest centred square, else the whole picture is squashed to one,
            as the
                official code does.

        Returns:
            ``CLIP_VISION_OUTPUT`` with ``penultimate_hidden_states [B, tokens, D]`` float32 on the result
            device.
        """
        host.load(self.patcher, whole=True)
        pixels = convert.centre_square(image) if crop in (True, "center") else image
        rows = self.encoder.encode(list(convert.to_pictures(pixels)))
        rows = rows.to(host.result_device()).float()
        return host.clip_vision_output(penultimate_hidden_states=rows)

    def __repr__(self) -> str:
        return "<image encoder of a Wan pipeline folder>"


class Boxed(nn.Module):
    """A module of transformers, whose ``device`` is read-only, in one that the host can write its own on."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
