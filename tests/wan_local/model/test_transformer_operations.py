"""Layers of another namespace: stored in anything, computing in the dtype of their input."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional

from wan_local.model import WanTransformer


class CastLinear(nn.Linear):
    def forward(self, x):
        return functional.linear(x, self.weight.to(x.dtype), self.bias.to(x.dtype))


class CastLayerNorm(nn.LayerNorm):
    def forward(self, x):
        return functional.layer_norm(x, self.normalized_shape, self.weight.to(x), self.bias.to(x), self.eps)


class CastRMSNorm(nn.RMSNorm):
    def forward(self, x):
        return functional.rms_norm(x, self.normalized_shape, self.weight.to(x), self.eps)


class CastConv3d(nn.Conv3d):
    def forward(self, x):
        return self._conv_forward(x, self.weight.to(x), self.bias.to(x))


CASTING = SimpleNamespace(Linear=CastLinear, LayerNorm=CastLayerNorm, RMSNorm=CastRMSNorm, Conv3d=CastConv3d)


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16, torch.float8_e4m3fn])
def test_casting_layers_compute_in_the_dtype_asked_for(lab, stored):
    """The same numbers, stored small and cast as they run, against a float32 model that holds them."""
    config = lab.tiny("flf")
    plain = lab.build(config)
    for parameter in plain.parameters():
        parameter.data = parameter.data.to(stored).float()
    model = WanTransformer(config, CASTING, compute_dtype=torch.float32).eval()
    model.load_state_dict({name: value.to(stored) for name, value in plain.state_dict().items()}, assign=True)
    given = lab.inputs(config, batch=2, text_rows=5)
    with torch.no_grad():
        assert lab.errors(lab.ask(model, given), lab.ask(plain, given))[0] <= 1e-6


def test_fp8_storage_without_a_stated_dtype_runs_in_bfloat16(lab):
    model = WanTransformer(lab.tiny("flf"), CASTING)
    lab.sharpen(model).to(torch.float8_e4m3fn)
    seen = []
    model.blocks[0].ffn[0].register_forward_pre_hook(lambda module, args: seen.append(args[0].dtype))
    with torch.no_grad():
        velocity = lab.ask(model, lab.inputs(model.config, text_rows=5))
    assert seen == [torch.bfloat16]
    assert velocity.isfinite().all()


def test_every_layer_with_weights_comes_from_operations(lab):
    model = WanTransformer(lab.tiny("flf"), CASTING)
    for name, module in model.named_modules():
        if list(module.parameters(recurse=False)) and not name.endswith(("head", "img_emb")):
            is_block = name.startswith("blocks.") and name.count(".") == 1  # holds modulation itself
            assert is_block or isinstance(module, tuple(vars(CASTING).values())), name


def test_attention_kernel_is_the_one_given(lab):
    calls = []

    def attend(q, k, v):
        calls.append((tuple(q.shape), tuple(k.shape)))
        return functional.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v))).transpose(1, 2)

    model = WanTransformer(lab.tiny("flf", num_layers=1), attend=attend)
    with torch.no_grad():
        lab.ask(model, lab.inputs(model.config, text_rows=5))
    video = (1, 12, 3, 32)
    assert calls == [(video, video), (video, (1, 5, 3, 32)), (video, (1, 14, 3, 32))]
