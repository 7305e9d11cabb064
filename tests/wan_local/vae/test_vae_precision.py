"""What the VAE is calculated in: encoding never in TF32, decoding in the dtype of its latents."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from wan_local import tf32
from wan_local.config import VAEConfig
from wan_local.vae import WanVAE, decode_dtype

CUDNN = torch.backends.cudnn
VIDEO = torch.zeros(1, 3, 5, 16, 16)


@pytest.fixture
def vae() -> WanVAE:
    torch.manual_seed(0)
    return WanVAE(VAEConfig(dim=4, num_res_blocks=1)).requires_grad_(False)


@pytest.fixture(params=[True, False], ids=["tf32 on", "tf32 off"])
def setting(request: pytest.FixtureRequest) -> Iterator[bool]:
    before = CUDNN.allow_tf32
    CUDNN.allow_tf32 = request.param
    yield request.param
    CUDNN.allow_tf32 = before


def seen(vae: WanVAE) -> list[bool]:
    """What each convolution finds the setting to be, from now on."""
    found: list[bool] = []
    for layer in vae.modules():
        if isinstance(layer, nn.Conv3d):
            layer.register_forward_pre_hook(lambda *_: found.append(tf32.enabled()))
    return found


def test_encoding_is_without_tf32_and_decoding_as_the_process_has_it(vae: WanVAE, setting: bool) -> None:
    found = seen(vae)
    latents = []
    for latent in vae.encode_stream(VIDEO):
        assert CUDNN.allow_tf32 == setting  # between two chunks the process has its own again
        latents.append(latent)
    vae.encode_moments(VIDEO)
    assert found
    assert not any(found)
    found.clear()
    vae.decode(torch.cat(latents, dim=2))
    assert set(found) == {setting}


def test_the_setting_is_put_back_after_an_error(vae: WanVAE, setting: bool) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    vae.encoder.conv1.register_forward_pre_hook(fail)
    vae.encoder.middle[0].register_forward_pre_hook(fail)
    with pytest.raises(KeyboardInterrupt):
        vae.encode(VIDEO)
    assert CUDNN.allow_tf32 == setting


def test_two_threads_leave_the_setting_as_it_was(vae: WanVAE, setting: bool) -> None:
    """The first to leave must not turn on what the other needs off."""
    inside, go_on = threading.Event(), threading.Event()
    found: list[bool] = []

    def encode() -> None:
        with tf32.exact_convolutions:
            inside.set()
            go_on.wait(10)
            found.append(tf32.enabled())

    other = threading.Thread(target=encode)
    other.start()
    assert inside.wait(10)
    vae.encode(VIDEO)
    assert not CUDNN.allow_tf32
    go_on.set()
    other.join(10)
    assert (found, CUDNN.allow_tf32) == ([False], setting)


@pytest.mark.skipif(not hasattr(CUDNN, "conv"), reason="this torch has no setting for each operation")
def test_the_newer_setting_is_put_back_too(vae: WanVAE) -> None:
    before = CUDNN.allow_tf32
    CUDNN.conv.fp32_precision, CUDNN.rnn.fp32_precision = "tf32", "ieee"
    try:
        found = seen(vae)
        vae.encode(VIDEO)
        assert not any(found)
        assert (CUDNN.conv.fp32_precision, CUDNN.rnn.fp32_precision) == ("tf32", "ieee")
    finally:
        CUDNN.allow_tf32 = before


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.no_grad()
def test_decoding_is_in_the_dtype_of_the_latents(vae: WanVAE, dtype: torch.dtype) -> None:
    outputs: list[torch.dtype] = []
    for layer in vae.modules():
        if isinstance(layer, nn.Conv3d):
            layer.register_forward_hook(lambda *args: outputs.append(args[-1].dtype))
    latents = torch.randn(1, 16, 3, 4, 2)
    expected = vae.decode(latents)
    assert set(outputs) == {torch.float32}
    outputs.clear()
    for chunk in vae.decode_stream(latents.to(dtype)):
        assert chunk.dtype == dtype
        assert not torch.is_autocast_enabled("cpu")  # who takes the frames goes on in dtypes of their own
    assert set(outputs) == {dtype}
    assert vae.conv2.weight.dtype == torch.float32
    error = (vae.decode(latents.to(dtype)).float() - expected).abs().max() / expected.abs().max()
    assert 0 < error <= 14 * torch.finfo(dtype).eps


@pytest.mark.parametrize(("capability", "dtype"), [((7, 5), torch.float32), ((8, 0), torch.bfloat16)])
def test_the_dtype_to_decode_in_follows_the_gpu(
    capability: tuple[int, int], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert decode_dtype(torch.device("cuda")) == dtype
    assert decode_dtype(torch.device("cpu")) == torch.float32
