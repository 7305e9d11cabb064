"""What eight-bit products do beside the product: passes over the input, which cost more than the units save."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tests.wan_local.quantised.float8_here import needs_float8_products
from wan_local import kitchen
from wan_local.config import TransformerConfig
from wan_local.model.blocks import Block
from wan_local.quantised import CastingLayers, Float8, float8_linear, layers, matmul, shared_inputs

E4M3 = torch.float8_e4m3fn
ROWS, WIDTH = 96, 64  # torch multiplies some ten million fp8 numbers a second on a CPU


class Passes(TorchDispatchMode):
    """Counts the values that operations read and write, products and views left out; and all calls by name."""

    def __init__(self, like: Tensor) -> None:
        super().__init__()
        self.large, self.bytes, self.calls = like.numel(), 0, Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        name = function._schema.name.removeprefix("aten::")
        self.calls[name] += 1
        if name not in ("_scaled_mm", "view", "_unsafe_view", "t", "empty", "reshape"):
            out = result if isinstance(result, Tensor) else None
            tensors = [*(value for value in args if isinstance(value, Tensor)), *([] if out is None else [out])]
            self.bytes += sum(tensor.nbytes for tensor in tensors if tensor.numel() >= self.large)
        return result


def layer(rows: int = WIDTH, *, scales: str = "one", bias: bool = True) -> tuple[Tensor, Tensor, Tensor | None]:
    """An e4m3 matrix, its scales and a bias."""
    weight = torch.randn(rows, WIDTH)
    scale = weight.abs().max().view(1, 1) / 448 if scales == "one" else weight.abs().amax(1, True) / 448
    return (weight / scale).to(E4M3), scale, torch.randn(rows).bfloat16() if bias else None


@needs_float8_products
def test_the_input_is_read_twice_and_written_once_and_the_bias_is_in_the_product() -> None:
    torch.manual_seed(0)
    x = torch.randn(1, ROWS, WIDTH).bfloat16()
    packed, scale, bias = layer()
    with Passes(x) as passes:
        float8_linear(x, packed, scale, bias)
    assert passes.bytes == x.numel() * (2 + 2 + 1)
    assert passes.calls["_scaled_mm"] == 1
    assert not passes.calls.keys() & {"add", "add_", "abs", "div"}


@needs_float8_products
@pytest.mark.parametrize("bias", [False, True])
def test_scales_of_rows_and_the_bias_take_one_pass_over_the_result(bias: bool) -> None:
    torch.manual_seed(1)
    x = torch.randn(1, ROWS, WIDTH).bfloat16()
    packed, scale, offset = layer(scales="rows", bias=bias)
    with Passes(x) as passes:
        float8_linear(x, packed, scale, offset)
    assert passes.bytes == x.numel() * (2 + 2 + 1) + ROWS * WIDTH * (2 + 2)


@needs_float8_products
def test_queries_keys_and_values_round_their_tokens_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Through a whole block: six other products have inputs of their own."""
    monkeypatch.setattr(layers, "has_float8_units", lambda device: True)
    torch.manual_seed(2)
    block, context, tokens = _block()
    rounded: list[Tensor] = []
    monkeypatch.setattr(matmul, "rounded", lambda rows, *_, own=matmul.rounded: rounded.append(rows) or own(rows))
    block(tokens, context)
    products = sum(isinstance(module, torch.nn.Linear) for module in block.modules())
    assert len(rounded) == products - 2
    block(tokens, context)
    assert len(rounded) == 2 * (products - 2), "nothing is kept from one pass for the next"


@needs_float8_products
def test_what_was_shared_is_what_each_would_have_rounded_and_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(3)
    x, y = torch.randn(2, 1, ROWS, WIDTH).bfloat16().unbind()
    packed, scale, bias = layer()
    rounded: list[Tensor] = []
    monkeypatch.setattr(matmul, "rounded", lambda rows, *_, own=matmul.rounded: rounded.append(rows) or own(rows))
    apart = [float8_linear(rows, packed, scale, bias) for rows in (x, y, x)]
    assert len(rounded) == 3
    with torch.inference_mode(), shared_inputs():  # where torch counts no versions of tensors
        together = [float8_linear(rows, packed, scale, bias) for rows in (x, y, x)]
    assert len(rounded) == 3 + 2
    assert all(map(torch.equal, apart, together))
    float8_linear(x, packed, scale, bias)
    assert len(rounded) == 3 + 2 + 1


@needs_float8_products
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("largest", [1e-30, 3e-3, 0.9, 300.0, 449.0, 6e4])
def test_numbers_of_every_size_fit_and_are_off_by_half_a_step(dtype: torch.dtype, largest: float) -> None:
    torch.manual_seed(4)
    rows = (largest * (2 * torch.rand(256, 256) - 1)).to(dtype)
    small, step = matmul.rounded(rows)
    error = (small.double() * step.double() - rows.double()).abs().max()
    assert torch.isfinite(small.float()).all()
    assert error <= 0.045 * rows.double().abs().max()  # half of the widest step of e4m3, and the bfloat16 on the way


def test_nothing_is_made_of_zeros_and_nan_stays_nan() -> None:
    small, step = matmul.rounded(torch.zeros(4, 32).bfloat16())
    assert not small.float().any()
    assert torch.isfinite(step)
    small, step = matmul.rounded(torch.tensor([[1.0, float("nan")]]).bfloat16())
    assert (small.float() * step).isnan().all()


def test_a_package_that_is_old_or_broken_is_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    class Old:
        def list_backends(self) -> dict[str, Any]:
            return {"cuda": {"available": True, "disabled": False}}

    for module, finds in ((Old(), None), (object(), None), (None, None)):
        monkeypatch.setattr(kitchen.importlib, "import_module", lambda name, module=module: module)
        kitchen.package.cache_clear()
        assert kitchen.function("quantize_per_tensor_fp8") is finds
    kitchen.package.cache_clear()


def _block() -> tuple[Block, Any, Tensor]:
    from wan_local.attention import sdpa
    from wan_local.model.blocks import Context

    config = TransformerConfig(dim=WIDTH, ffn_dim=2 * WIDTH, num_heads=4, num_layers=1)
    block = Block(config, CastingLayers).requires_grad_(False)
    for module in block.modules():
        if isinstance(module, layers.Linear):
            scale = (module.weight.abs().max() / 448).view(1, 1)
            packed = (module.weight / scale).to(E4M3)
            module.pack(packed, Float8(shape=tuple(packed.shape), dtype=E4M3, scaled=True), scale)
            module.float8_matmul = True
    context = Context(
        time=torch.randn(1, 6, WIDTH),
        text=torch.randn(1, 32, WIDTH).bfloat16(),
        image=torch.randn(1, 32, WIDTH).bfloat16(),
        rope=torch.polar(torch.ones(ROWS, 1, WIDTH // 8), torch.randn(ROWS, 1, WIDTH // 8)),
        dtype=torch.bfloat16,
        attend=sdpa.attend,
    )
    return block, context, torch.randn(1, ROWS, WIDTH)
