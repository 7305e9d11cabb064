"""int8 weights multiplied as they are, by comfy-kitchen's plain code in the place of its CUDA kernels."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
import torch

from tests.wan_local.weights import packed_files as files
from wan_local import kitchen
from wan_local.quantised import Int8, Linear, layers
from wan_local.quantised.int8 import hadamard

package = pytest.importorskip("comfy_kitchen", reason="comfy-kitchen can't be imported here", exc_type=Exception)


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "has_int8_kernels", lambda x: True)
    monkeypatch.setattr(kitchen, "package", lambda: (package, ""))
    monkeypatch.setattr(kitchen, "_broken", set())


def layer(*, scales: int, turned: int) -> tuple[Linear, torch.Tensor]:
    """A layer and its matrix in float64."""
    torch.manual_seed(6)
    made, values = Linear(512, 256), torch.randn(256, 512)
    spun = values if not turned else (values.unflatten(1, (-1, turned)) @ hadamard(turned, values.device)).flatten(1)
    scale = (spun.abs().max().view(1, 1) if scales == 1 else spun.abs().amax(1, True)) / 127
    packing = Int8(shape=(256, 512), scales=scales, turned=turned)
    made.pack((spun / scale).round().to(torch.int8), packing, scale)
    made.float8_matmul = True
    return made.requires_grad_(False), packing.dequantize(made.weight, scale, torch.float32).double()


@pytest.mark.skipif(not hasattr(package, "int8_linear"), reason="this comfy-kitchen has no int8 products")
@pytest.mark.parametrize("turned", [0, 256])
@pytest.mark.parametrize("scales", [1, 256])
def test_against_float64(scales: int, turned: int) -> None:
    made, matrix = layer(scales=scales, turned=turned)
    x = torch.randn(2, 70, 512).bfloat16()
    exact = torch.nn.functional.linear(x.double(), matrix, made.bias.double())
    found = made(x)
    made.float8_matmul = False
    wide = made(x)
    assert found.dtype == torch.bfloat16
    assert not torch.equal(found, wide)
    errors = [files.relative_error(one.double(), exact) for one in (wide, found)]
    print(f"scales {scales}, turned {turned}: largest error dequantized {errors[0]:.1e}, in int8 {errors[1]:.1e}")
    assert errors[1] < 0.02


@pytest.mark.parametrize("there", [{}, {"int8_linear": None}])
def test_a_package_without_them_or_whose_fail_leaves_weights_to_be_dequantized(
    there: dict[str, None], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made, _ = layer(scales=1, turned=0)
    x = torch.randn(2, 70, 512).bfloat16()
    monkeypatch.setattr(kitchen, "package", lambda: (SimpleNamespace(**dict.fromkeys(there, _fail)), ""))
    with caplog.at_level(logging.WARNING):
        found = [made(x) for _ in range(2)]
    made.float8_matmul = False
    assert all(torch.equal(one, made(x)) for one in found)
    assert len(caplog.messages) == len(there)
    full = SimpleNamespace(int8_linear=_full)
    monkeypatch.setattr(kitchen, "package", lambda: (full, ""))
    monkeypatch.setattr(kitchen, "_broken", set())
    made.float8_matmul = True
    with pytest.raises(torch.OutOfMemoryError):
        made(x)


def _fail(*args: object, **options: object) -> None:
    raise RuntimeError("no kernel image is available")


def _full(*args: object, **options: object) -> None:
    raise torch.OutOfMemoryError("out of memory")
