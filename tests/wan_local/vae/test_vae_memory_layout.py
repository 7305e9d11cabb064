"""Every convolution of the Wan-VAE is fed, and answers, in channels-last memory: anything else is turned around."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from wan_local.config import VAEConfig
from wan_local.vae import WanVAE

WAYS: dict[str, Callable[[WanVAE, int], object]] = {
    "encode streamed": lambda vae, latents: list(vae.encode_stream(video(latents))),
    "encode whole": lambda vae, latents: vae.encode_moments(video(latents)),
    "decode streamed": lambda vae, latents: list(vae.decode_stream(torch.randn(1, 16, latents, 6, 4))),
    "decode whole": lambda vae, latents: vae.decode_whole(torch.randn(1, 16, latents, 6, 4)),
}
FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}


class HostConv3d(nn.Conv3d):
    """Of another class than torch's own, as a host's layers are."""


HOST = type("Host", (), {"Conv2d": nn.Conv2d, "Conv3d": HostConv3d})


def video(latents: int) -> Tensor:
    return torch.rand(1, 3, 4 * latents - 3, 48, 32) * 2 - 1


def is_channels_last(x: Tensor) -> bool:
    """Also by the strides of axes of one element, which cuDNN goes by."""
    batch, channel, *places = x.stride()
    slowest_last = [channel, *reversed(places), batch]
    return x.is_contiguous(memory_format=FORMATS[x.ndim]) and slowest_last == sorted(slowest_last)


class Calls(TorchFunctionMode):
    """What convolutions and attention are given. Convolutions answer in the memory they are given, as a GPU's do; on a
    CPU the small ones of a test do not."""

    def __init__(self) -> None:
        super().__init__()
        self.convolved: list[Tensor] = []
        self.attended: list[tuple[Tensor, ...]] = []

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function in (torch.conv2d, torch.conv3d, torch.mkldnn_convolution):
            x = args[0]
            self.convolved.append(x)
            memory = FORMATS[x.ndim] if is_channels_last(x) else torch.contiguous_format
            return function(*args, **(kwargs or {})).contiguous(memory_format=memory)
        if function is functional.scaled_dot_product_attention:
            self.attended.append(args)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("latents", [1, 3])
@pytest.mark.parametrize("operations", [nn, HOST], ids=["torch", "host"])
@pytest.mark.parametrize("grad", [False, True], ids=["no grad", "grad"])
@pytest.mark.parametrize("way", WAYS)
def test_convolutions_are_given_channels_last_memory(way: str, grad: bool, operations: Any, latents: int) -> None:
    vae = WanVAE(VAEConfig(dim=8), operations)
    with torch.set_grad_enabled(grad), Calls() as calls:
        WAYS[way](vae, latents)
    wrong = [(tuple(x.shape), x.stride()) for x in calls.convolved if not is_channels_last(x)]
    assert len(calls.convolved) >= 30
    assert not wrong


@pytest.mark.parametrize("way", ["encode streamed", "decode streamed"])
@torch.no_grad()
def test_attention_is_given_what_fused_kernels_take(way: str) -> None:
    with Calls() as calls:
        WAYS[way](WanVAE(VAEConfig(dim=8)), 2)
    assert len(calls.attended) == 2
    assert all(x.is_contiguous() for args in calls.attended for x in args)
