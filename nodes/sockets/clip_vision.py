"""CLIP_VISION: a pipeline folder's image encoder as core calls it, and whatever is connected as an image encoder."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ...wan_local.encoders.image import ImageEncoder
from .. import host
from . import image as images


class SocketImageEncoder:
    """What is connected to a CLIP_VISION socket, ours or core's, as the library's image encoder."""

    def __init__(self, clip_vision: Any) -> None:
        self._clip_vision = clip_vision

    def encode(self, given: list[Tensor]) -> Tensor:
        """Images ``[3, H, W]`` in -1..1 -> image embeddings ``[N, tokens, D]``; each is seen whole, squashed to a
        square."""
        seen = [self._clip_vision.encode_image(images.from_one_image(image), crop=False) for image in given]
        return torch.cat([output["penultimate_hidden_states"] for output in seen])


class HostedCLIPVision:
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
        """Encode images.

        Args:
            image: IMAGE ``[B, H, W, C]``.
            crop: True or "center" cuts the largest centred square, else the whole image is squashed to one, as
                the official code does.

        Returns:
            ``CLIP_VISION_OUTPUT`` with ``penultimate_hidden_states [B, tokens, D]`` float32 on the result
            device.
        """
        host.load(self.patcher, whole=True)
        pixels = images.centre_square(image) if crop in (True, "center") else image
        embeddings = self.encoder.encode(list(images.to_images(pixels)))
        embeddings = embeddings.to(host.result_device()).float()
        return host.clip_vision_output(penultimate_hidden_states=embeddings)

    def __repr__(self) -> str:
        return "<image encoder of a Wan pipeline folder>"


class Boxed(nn.Module):
    """A module of transformers, whose ``device`` is read-only, in one that the host can write its own on."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
