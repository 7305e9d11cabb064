"""LoRAs on weights that are mapped from their file: no second copy of them, and nothing large in a forward."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from tests.wan_local.weights import packed_files as files
from wan_local import free_memory
from wan_local.config import TransformerConfig
from wan_local.denoiser import Denoiser
from wan_local.generate import Pipeline
from wan_local.lora import Beside, Lora, LowRank, Use, merge, merged_bytes
from wan_local.memory import Memory
from wan_local.memory.live import LiveBytes
from wan_local.memory.stages import weights_of
from wan_local.model import WanTransformer
from wan_local.weights import load_transformer


def pairs(model: WanTransformer, rank: int = 4) -> Lora:
    torch.manual_seed(3)
    deltas = {
        name: LowRank(up=torch.randn(len(value), rank) / 9, down=torch.randn(rank, value.shape[1]) / 9, scale=1.0)
        for name, value in model.named_parameters()
        if name.startswith("blocks.") and value.ndim == 2
    }
    return Lora(path="x", deltas=deltas, matched=2 * len(deltas), unmatched=())


def places(model: WanTransformer) -> dict[str, int]:
    return {name: value.data_ptr() for name, value in model.named_parameters()}


@pytest.mark.parametrize("case", ["offload", "auto", "no room", "room"])
def test_mapped_weights_stay_mapped_where_memory_matters(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = files.write_plain(tmp_path / "model.safetensors", files.original(), torch.float32)
    model, merged = load_transformer(path), load_transformer(path)
    lora, mapped = pairs(model), places(model)
    merge(merged, [(lora, 0.7)])
    size = merged_bytes(model, [Use(lora=lora)])
    assert size == sum(value.nbytes for name, value in model.named_parameters() if name in lora.deltas)
    free = free_memory.HOST_RESERVE + size + (-1 if case == "no room" else 0)
    monkeypatch.setattr(free_memory, "free_host_bytes", lambda: free)
    memory = Memory("cpu", {"offload": 2, "auto": "auto"}.get(case, "none"))
    vae = SimpleNamespace(config=SimpleNamespace(z_dim=16))
    (applied,) = Pipeline([Denoiser(transformer=model)], vae, None, memory=memory).use_loras(
        [Use(lora=lora, strength=0.7)]
    )
    if case == "room":
        assert (applied.merged, applied.beside) == (1, 0)
    else:
        assert (applied.merged, applied.beside) == (0, 1)
        assert places(model) == mapped
    assert files.relative_error(files.forward(model), files.forward(merged)) < 1e-5


def test_matrices_beside_the_weights_are_in_the_plan() -> None:
    model = WanTransformer(files.CONFIG).requires_grad_(False)
    before = weights_of(model, torch.device("cpu"))
    lora = pairs(model)
    Beside(model, [(lora, 1.0)])
    after = weights_of(model, torch.device("cpu"))
    taken = sum(delta.up.nbytes + delta.down.nbytes for delta in lora.deltas.values())
    assert after.transformer - before.transformer == sum(after.blocks) - sum(before.blocks) == taken


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_forward_takes_hardly_more_with_a_lora_beside(dtype: torch.dtype) -> None:
    config = TransformerConfig(
        dim=256, ffn_dim=2048, num_heads=2, num_layers=2, text_dim=64, image_dim=48, image_tokens=10, text_len=16,
    )  # fmt: skip
    model = WanTransformer(config).to(dtype).requires_grad_(False).eval()
    given = torch.zeros(1, 36, 5, 32, 32), torch.tensor([500.0]), torch.zeros(1, 16, 64), torch.zeros(1, 10, 48)

    def peak() -> int:
        with torch.no_grad(), LiveBytes() as count:
            model(*given)
        return count.peak

    alone = peak()
    Beside(model, [(pairs(model), 1.0)])
    assert peak() < 1.05 * alone


def test_sums_are_taken_in_the_output_whatever_it_is() -> None:
    """Autocast, one row, no row."""
    model = WanTransformer(files.CONFIG).requires_grad_(False)
    layer, name = model.blocks[0].ffn[0], "blocks.0.ffn.0.weight"
    delta = pairs(model).deltas[name]
    Beside(model, [(Lora(path="x", deltas={name: delta}, matched=2, unmatched=()), 0.5)])
    width = files.CONFIG.dim

    def expected(x: Tensor) -> Tensor:
        return torch.nn.functional.linear(x, layer.weight + 0.5 * delta.value(), layer.bias)

    for x in (torch.randn(2, 3, width), torch.randn(width), torch.randn(0, width), torch.randn(width, 4).t()):
        assert torch.allclose(layer(x), expected(x), atol=1e-4)
    x = torch.randn(2, 3, width)
    with torch.autocast("cpu", torch.bfloat16):
        low = layer(x)
    assert low.dtype == torch.bfloat16
    assert files.relative_error(low.float(), expected(x)) < 0.02
