"""ComfyUI's int8, mxfp8 and nvfp4 against comfy-kitchen, whose code writes and reads them there."""

from __future__ import annotations

import pytest
import torch

from wan_local.quantised import MXFP8, NVFP4, Int8
from wan_local.quantised.block_scaled import in_rows
from wan_local.quantised.int8 import can_turn, hadamard

kitchen = pytest.importorskip("comfy_kitchen.tensor", reason="comfy-kitchen can't be imported here", exc_type=Exception)

SHAPES = [(64, 256), (256, 512), (130 * 16, 1024), (96, 2048)]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def matrix(shape: tuple[int, int]) -> torch.Tensor:
    """With a few values that stick out, which scales follow."""
    torch.manual_seed(shape[0])
    values = torch.randn(shape) / shape[1] ** 0.5
    values[:: shape[0] // 7, 3] *= 40
    return values


def quantised(values: torch.Tensor, layout: str, dtype: torch.dtype, **how: bool | int) -> tuple:
    """Stored tensors by the end of their names, and what comfy-kitchen dequantizes them to."""
    tensor = kitchen.QuantizedTensor.from_float(values.to(dtype), layout, **how)
    return tensor.state_dict("weight"), tensor.dequantize()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("how", [{}, {"per_channel": True}])
def test_int8(shape: tuple[int, int], how: dict[str, bool], dtype: torch.dtype) -> None:
    stored, expected = quantised(matrix(shape), "TensorWiseINT8Layout", dtype, **how)
    scale = stored["weight_scale"].reshape(-1, 1)
    packing = Int8(shape=shape, scales=len(scale))
    assert torch.equal(packing.dequantize(stored["weight"], scale, dtype), expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("group", [4, 16, 64, 256])
def test_int8_turned(shape: tuple[int, int], group: int, dtype: torch.dtype) -> None:
    how = {"per_channel": True, "convrot": True, "convrot_groupsize": group}
    stored, expected = quantised(matrix(shape), "TensorWiseINT8Layout", dtype, **how)
    packing = Int8(shape=shape, scales=shape[0], turned=group)
    assert torch.equal(packing.dequantize(stored["weight"], stored["weight_scale"], dtype), expected)
    truth, values = matrix(shape), packing.dequantize(stored["weight"], stored["weight_scale"], torch.float32)
    assert (values - truth).norm() < 0.05 * truth.norm()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_mxfp8(shape: tuple[int, int], dtype: torch.dtype) -> None:
    stored, expected = quantised(matrix(shape), "TensorCoreMXFP8Layout", dtype)
    scale = in_rows(stored["weight_scale"].view(torch.uint8), shape[0], shape[1] // 32)
    assert torch.equal(MXFP8(shape=shape).dequantize(stored["weight"], scale, dtype), expected)


@pytest.mark.parametrize("shape", SHAPES)
def test_nvfp4(shape: tuple[int, int]) -> None:
    stored, expected = quantised(matrix(shape), "TensorCoreNVFP4Layout", torch.float32)
    scale = in_rows(stored["weight_scale"].view(torch.uint8), shape[0], shape[1] // 16)
    packing = NVFP4(shape=shape, factor=float(stored["weight_scale_2"]))
    assert torch.equal(packing.dequantize(stored["weight"], scale, torch.float32), expected)
    # In half precision the CPU code of comfy-kitchen rounds the scales, their product and the result; ours the result.
    once = packing.dequantize(stored["weight"], scale, torch.bfloat16)
    assert torch.equal(once, expected.bfloat16())


@pytest.mark.parametrize("packing", [Int8(shape=(64, 256), scales=64, turned=64), MXFP8(shape=(64, 256)),
                                     NVFP4(shape=(64, 256), factor=0.01)], ids=lambda p: p.name)  # fmt: skip
def test_a_matrix_larger_than_one_piece(packing, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(3)
    if isinstance(packing, Int8):
        packed, scale = torch.randint(-127, 128, (64, 256), dtype=torch.int8), torch.rand(64, 1)
    elif isinstance(packing, MXFP8):
        packed = torch.randn(64, 256).to(torch.float8_e4m3fn)
        scale = torch.randint(100, 140, (64, 8), dtype=torch.uint8)
    else:
        packed = torch.randint(0, 256, (64, 128), dtype=torch.uint8)
        scale = torch.rand(64, 16).to(torch.float8_e4m3fn).view(torch.uint8)
    whole = packing.dequantize(packed, scale, torch.bfloat16)
    monkeypatch.setattr("wan_local.quantised.packing.CHUNK", 700)
    torch.testing.assert_close(packing.dequantize(packed, scale, torch.bfloat16), whole, rtol=2**-8, atol=0)
    # transformers' layers keep some weights as signed bytes; the numbers are the same
    assert torch.equal(packing.dequantize(packed.view(torch.int8), scale, torch.bfloat16),
                       packing.dequantize(packed, scale, torch.bfloat16))  # fmt: skip
    assert packing.bytes == packed.nbytes + scale.nbytes


def test_rows_are_turned_by_what_undoes_itself() -> None:
    for side in (4, 16, 64, 256, 1024):
        turn = hadamard(side, torch.device("cpu")).double()
        assert torch.equal(turn, turn.T)
        assert (turn @ turn - torch.eye(side)).abs().max() < 1e-6
    assert [side for side in range(-4, 1100) if can_turn(side)] == [4, 16, 64, 256, 1024]
