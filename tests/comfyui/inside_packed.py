"""Packed weights in the care of core's memory management; inside ComfyUI's interpreter."""

from __future__ import annotations

import gc
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

from inside_checks import apart, bundled, check, lib
from inside_model import inputs, lora_file, resident, small_transformer


def fp8_file(nodes: Any, folder: str) -> str:
    """Matrices of the blocks in scaled fp8, in the older of ComfyUI's markings."""
    import torch
    from safetensors.torch import save_file

    tensors = {"scaled_fp8": torch.zeros(2, dtype=torch.float8_e4m3fn)}
    for name, value in small_transformer(nodes).state_dict().items():
        if value.ndim == 2 and name.startswith("blocks."):
            scale = value.abs().max() / 448
            tensors |= {name: (value / scale).to(torch.float8_e4m3fn), name.replace("weight", "scale_weight"): scale}
        else:
            tensors[name] = value
    path = str(Path(folder, "fp8.safetensors"))
    save_file(tensors, path)
    return path


def gguf_file(nodes: Any, folder: str) -> str:
    """Matrices of the blocks as Q8_0."""
    state = small_transformer(nodes).state_dict()
    packed = {name for name, value in state.items() if value.ndim == 2 and name.startswith("blocks.")}
    return write_gguf(Path(folder, "packed.gguf"), "wan", state, packed)


def write_gguf(path: Path, architecture: str, state: dict[str, Any], q8_0: set[str]) -> str:
    """Some tensors as Q8_0 and the others as float32, written by hand: ComfyUI brings no gguf package."""
    import struct

    import torch

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    rows, data = [], b""
    for name, value in state.items():
        kind, raw = 0, value.float().numpy().tobytes()
        if name in q8_0:
            blocks = value.float().reshape(-1, 32)
            scale = (blocks.abs().amax(1, keepdim=True) / 127).half()
            quants = (blocks / scale.float()).round().clamp(-127, 127).to(torch.int8)
            packed = torch.cat([scale.view(torch.uint8), quants.view(torch.uint8)], dim=1)
            kind, raw = 8, packed.numpy().tobytes()
        data += b"\0" * (-len(data) % 32)
        sides = list(value.shape)[::-1]
        rows.append(text(name) + struct.pack(f"<I{len(sides)}QIQ", len(sides), *sides, kind, len(data)))
        data += raw
    head = b"GGUF" + struct.pack("<IQQ", 3, len(rows), 1) + text("general.architecture")
    head += struct.pack("<I", 8) + text(architecture) + b"".join(rows)
    path.write_bytes(head + b"\0" * (-len(head) % 32) + data)
    return str(path)


def loaded(nodes: Any, path: str, **how: Any) -> Any:
    import torch

    model = lib(nodes, "weights").load_transformer(path, operations=nodes.host.Operations, **how)
    model.compute_dtype = torch.float32
    return model


@check
def packed_weights_give_what_the_library_gives(nodes: Any) -> str:
    import torch

    told = []
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        for write in (fp8_file, gguf_file):
            path = write(nodes, folder)
            theirs = lib(nodes, "weights").load_transformer(path, dtype=torch.float32, unpack=True)
            expected = theirs(*inputs())
            model = loaded(nodes, path)
            whole = model(*inputs())
            assert apart(whole, expected) < 1e-5, apart(whole, expected)
            patcher = resident(nodes, model, sum(p.nbytes for p in model.parameters()) // 2)
            assert model.model_lowvram
            assert torch.equal(model(*inputs()), whole)
            size, plain = patcher.model_size(), sum(p.nbytes for p in theirs.parameters())
            assert {p.dtype.itemsize for p in model.blocks[0].ffn[0].parameters()} == {1, 4}
            told.append(f"{write.__name__} {apart(whole, expected):.1e}, {size / plain:.2f} of its float32 size")
    return "; ".join(told)


@check
def a_lora_on_packed_weights_equals_one_merged_into_dequantized_ones(nodes: Any) -> str:
    import torch

    grid = lib(nodes, "shapes").Grid(frames=9, height=48, width=64)
    worst = 0.0
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        for write in (fp8_file, gguf_file):
            path = write(nodes, folder)
            plain = nodes.sockets.model.WanModel(loaded(nodes, path))
            dequantized = lib(nodes, "weights").load_transformer(path, torch.float32, unpack=True)
            found, other = (lora_file(nodes, dequantized, folder, seed) for seed in (3, 4))
            assert not found.unmatched
            before = plain.load(grid)(*inputs())

            def merged(*loras: tuple[Any, float], path: str = path) -> Any:
                model = lib(nodes, "weights").load_transformer(path, dtype=torch.float32, unpack=True)
                lib(nodes, "lora").merge(model, loras)
                return model(*inputs())

            one, both = merged((found, 0.6)), merged((found, 0.6), (other, 0.5))
            assert min(apart(one, before), apart(both, before), apart(both, one)) > 0.05
            once = plain.with_lora(found, 0.6)
            chained = once.with_lora(other, 0.5)
            for _ in range(2):
                worst = max(worst, apart(chained.load(grid)(*inputs()), both))
                worst = max(worst, apart(once.load(grid)(*inputs()), one))
            assert torch.equal(plain.load(grid)(*inputs()), before), "the LoRA stayed on the model it was taken off"
            hooks = [len(layer._forward_hooks) for layer in plain.transformer.modules()]
            del chained
            gc.collect()
            worst = max(worst, apart(once.load(grid)(*inputs()), one))
            del once
            gc.collect()
            left = [len(layer._forward_hooks) for layer in plain.transformer.modules()]
            assert sum(left) < sum(hooks), "matrices nobody uses any more stayed on the model"
            assert torch.equal(plain.load(grid)(*inputs()), before), "what nobody uses any more left something behind"
            assert not any("lora_" in name for name, _ in plain.transformer.named_buffers())
    assert worst <= 1e-4, worst
    return f"relative difference to the merged model: {worst:.1e}"


@check
def the_loader_keeps_or_dequantizes(nodes: Any) -> None:
    import torch

    with tempfile.TemporaryDirectory() as folder:
        path = Path(fp8_file(nodes, folder))
        kept = nodes.loading.load_model(path, "default", "sdpa").transformer
        assert kept.blocks[0].ffn[0].weight.dtype == torch.float8_e4m3fn
        assert kept.compute_dtype in (torch.bfloat16, torch.float32)
        dequantized = nodes.loading.load_model(path, "fp32", "sdpa").transformer
        assert {p.dtype for p in dequantized.parameters()} == {torch.float32}


@check
def loaders_move_the_bar_and_hear_a_stop(nodes: Any) -> None:
    def press_stop(done: int, preview: Any) -> None:
        shown.append(done)
        if stop_at is not None and done >= stop_at:
            nodes.host.management.interrupt_current_processing()

    folder, shown, stop_at = bundled(nodes), [], None
    with mock.patch.object(nodes.host, "progress_bar", return_value=press_stop):
        nodes.loading.load_parts(folder, "fp32", "sdpa")
        assert shown == sorted(shown)
        assert shown[-1] == 100
        assert len(set(shown)) > 50, shown
        for stop_at in (1, 30, 85, 97):  # transformer, text encoder and image encoder
            shown.clear()
            try:
                nodes.loading.load_parts(folder, "fp32", "sdpa")
            except nodes.host.Stopped:
                pass
            else:
                raise AssertionError("it went on to its end")
            assert shown[-1] < stop_at + 10, shown


@check
def a_gpu_calculates_with_float32_weights_in_half_precision_unless_asked(nodes: Any) -> str:
    import torch
    from safetensors.torch import save_file

    told = []
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        path = Path(folder, "fp32.safetensors")
        save_file(small_transformer(nodes).state_dict(), path)
        expected = small_transformer(nodes)(*inputs())

        def load(weight_dtype: str) -> Any:
            model = nodes.loading.load_model(path, weight_dtype, "sdpa")
            assert {p.dtype for p in model.transformer.parameters()} == {torch.float32}
            assert f"torch.{model.setup.dtype}" == str(model.transformer.compute_dtype)
            told.append(f"{weight_dtype} {apart(model.transformer(*inputs()), expected):.1e}")
            return model.transformer.compute_dtype

        on_cpu = load("default")
        assert on_cpu == torch.float32, on_cpu
        management = nodes.host.management
        can = {"should_use_bf16": lambda *a, **k: True, "should_use_fp16": lambda *a, **k: True}
        with mock.patch.multiple(management, **can):  # a GPU's answers
            assert load("default") == torch.bfloat16
            assert load("fp32") == torch.float32
            with mock.patch.object(management.args, "fp32_unet", True):
                assert load("default") == torch.float32
    return f"relative difference to float32: {', '.join(told)}"
