"""LoRAs of every kind in the care of core's memory management, and beside core's own; inside ComfyUI's interpreter."""

from __future__ import annotations

import gc
import tempfile
import weakref
from pathlib import Path
from typing import Any

from inside_checks import apart, check, lib
from inside_model import inputs, lora_file, small_transformer
from inside_packed import fp8_file, loaded

RANK = 4
PINS = ("weights", "patches", "weights-loaded", "patches-loaded")
KINDS = ("lora", "loha", "lokr", "lokr in parts", "glora", "dora", "dora of inputs", "doha", "set", "diff")


def parts(kind: str, weight: Any) -> dict[str, Any]:
    """A change of that kind for a weight ``[out, in]``, as suffix to tensor."""
    import torch

    out, into = weight.shape
    a, b = torch.randn(out, RANK) * 0.1, torch.randn(RANK, into) * 0.1
    low_rank = {"lora_up.weight": a, "lora_down.weight": b, "alpha": torch.tensor(2.0)}
    sides = [(f"hada_w{n}_{side}", value) for n in (1, 2) for side, value in (("a", a), ("b", b))]
    halves = {name: torch.randn(value.shape) * 0.5 for name, value in sides}
    match kind:
        case "lora":
            return low_rank
        case "loha":
            return {**halves, "alpha": torch.tensor(3.0)}
        case "lokr":
            return {"lokr_w1": torch.randn(4, 4) * 0.3, "lokr_w2": torch.randn(out // 4, into // 4) * 0.2}
        case "lokr in parts":
            w2 = torch.randn(out // 4, 2) * 0.2, torch.randn(2, into // 4)
            w1 = torch.randn(4, 2) * 0.3, torch.randn(2, 4)
            names = ("lokr_w1_a", "lokr_w1_b", "lokr_w2_a", "lokr_w2_b")
            return {**dict(zip(names, (*w1, *w2), strict=True)), "alpha": torch.tensor(1.0)}
        case "glora":
            into_out = torch.randn(into, RANK) * 0.2, torch.randn(RANK, into) * 0.2
            return dict(zip(("a1.weight", "a2.weight", "b1.weight", "b2.weight"), (*into_out, a, b), strict=True))
        case "dora":
            return {**low_rank, "dora_scale": weight.norm(dim=1, keepdim=True) * 1.2}
        case "dora of inputs":
            return {**low_rank, "dora_scale": weight.norm(dim=0, keepdim=True) * 0.8}
        case "doha":
            return {**halves, "dora_scale": weight.norm(dim=1, keepdim=True) * 0.9}
        case "set":
            return {"set_weight": torch.randn(out, into) * 0.05}
    return {"diff": torch.randn(out, into) * 0.05}


def file_of_kinds(nodes: Any, model: Any, folder: str, kinds: tuple[str, ...] = KINDS) -> Any:
    """Every kind on some layer of every block."""
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(5)
    names = ("self_attn.q", "self_attn.k", "self_attn.v", "self_attn.o", "cross_attn.q", "cross_attn.k",
             "cross_attn.v_img", "cross_attn.o", "ffn.0", "ffn.2")  # fmt: skip
    tensors = {}
    for block in range(len(model.blocks)):
        for index, name in enumerate(names):
            weight = model.get_submodule(f"blocks.{block}.{name}").weight.float()
            made = parts(kinds[(index + block) % len(kinds)], weight)
            tensors |= {f"diffusion_model.blocks.{block}.{name}.{suffix}": value for suffix, value in made.items()}
    path = str(Path(folder, "kinds.safetensors"))
    save_file(tensors, path)
    return lib(nodes, "lora").read(path, {name: tuple(value.shape) for name, value in model.named_parameters()})


@check
def every_kind_of_lora_on_the_wire_equals_one_merged(nodes: Any) -> str:
    """Plain weights by the host, whole and half offloaded, alone and after another; packed ones beside."""
    import torch

    grid = lib(nodes, "shapes").Grid(frames=9, height=48, width=64)
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        base = small_transformer(nodes)
        every, other = file_of_kinds(nodes, base, folder), lora_file(nodes, base, folder)
        assert not every.unmatched
        before = base(*inputs())

        def merged(make: Any, *loras: tuple[Any, float]) -> Any:
            model = make()
            lib(nodes, "lora").merge(model, loras)
            return model(*inputs())

        def on_wire(model: Any, *loras: tuple[Any, float]) -> Any:
            for found, strength in loras:
                model = model.with_lora(found, strength)
            return model

        packed = fp8_file(nodes, folder)
        makers = {
            "plain": (lambda: small_transformer(nodes), lambda: small_transformer(nodes)),
            "packed": (
                lambda: loaded(nodes, packed),
                lambda: lib(nodes, "weights").load_transformer(packed, torch.float32, unpack=True),
            ),
        }
        told = []
        for name, (make, dequantized) in makers.items():
            plain = nodes.sockets.model.WanModel(make())
            untouched = plain.load(grid)(*inputs())
            worst = 0.0
            for loras in ([(every, 1.0)], [(every, 0.6)], [(every, 0.7), (other, 0.5)], [(other, 0.5), (every, -0.4)]):
                expected = merged(dequantized, *loras)
                assert apart(expected, before) > 0.05
                model = on_wire(plain, *loras)
                worst = max(worst, apart(model.load(grid)(*inputs()), expected))
                del model
                gc.collect()
                assert torch.equal(plain.load(grid)(*inputs()), untouched), "the LoRA stayed on the model"
            told.append(f"{name} {worst:.1e}")
            assert worst <= 1e-4, (name, worst)
        nodes.host.management.unload_all_models()
        fresh = on_wire(nodes.sockets.model.WanModel(small_transformer(nodes)), (every, 0.6))
        fresh.patcher.patch_model(torch.device("cpu"), lowvram_model_memory=fresh.patcher.model_size() // 2)
        assert fresh.transformer.lowvram_patch_counter > 0
        offloaded = apart(fresh.transformer(*inputs()), merged(lambda: small_transformer(nodes), (every, 0.6)))
        assert offloaded <= 1e-4, offloaded
    return f"relative difference to the merged model: {', '.join(told)}, half offloaded {offloaded:.1e}"


@check
def our_merge_gives_what_core_makes_of_the_same_file(nodes: Any) -> str:
    """Core reads the same tensors itself. Its DoRA of outputs divides by another norm; see the table in docs."""
    import comfy.lora
    import torch
    from safetensors.torch import load_file

    told = []
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        base = small_transformer(nodes)
        name = "blocks.0.ffn.0.weight"
        for kind in KINDS:
            for strength in (1.0, 0.6):
                if kind in ("dora", "doha") or (kind == "set" and strength != 1.0):
                    continue
                found = file_of_kinds(nodes, base, folder, (kind,))
                known = {f"diffusion_model.{name.removesuffix('.weight')}": name}
                patches = comfy.lora.load_lora(load_file(Path(folder, "kinds.safetensors")), known, log_missing=False)
                weight = base.get_parameter(name).data
                theirs = comfy.lora.calculate_weight([(strength, patches[name], 1.0, None, None)], weight.clone(), name)
                ours = found.deltas[name].applied(weight, strength)
                told.append(apart(ours, theirs))
                assert told[-1] <= 1e-5, (kind, strength, told[-1])
    return f"relative difference at most {max(told):.1e}"


@check
def the_node_shows_what_of_the_file_matched_nothing(nodes: Any) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    model, shown = nodes.sockets.model.WanModel(small_transformer(nodes)), []
    there, said = nodes.host.model_path, nodes.host.show_text
    with tempfile.TemporaryDirectory() as folder:
        path = Path(lora_file(nodes, model.transformer, folder).path)
        save_file(load_file(path) | {"lora_te_layer.lora_up.weight": torch.ones(1, 1)}, path)
        nodes.host.model_path, nodes.host.show_text = lambda kind, name: path, shown.append
        try:
            nodes.lora.WanFLF2VLoRA.execute(model, path.name, 1.0)
        finally:
            nodes.host.model_path, nodes.host.show_text = there, said
    assert len(shown) == 1, shown
    assert shown[0].startswith(f"{path.name}: 30 tensors change 12 parameters"), shown
    assert shown[0].endswith("; 1 not used ('lora_te_layer.lora_up.weight')"), shown


@check
def ten_loras_taken_off_do_not_come_back_with_what_the_host_restores(nodes: Any) -> str:
    """Dynamic VRAM keeps what it finds on a model and puts it back, so nothing of a LoRA may be found there."""
    import comfy.model_patcher
    import torch

    dynamic = getattr(comfy.model_patcher, "ModelPatcherDynamic", None)
    device = torch.device("cpu")
    patcher_class = comfy.model_patcher.ModelPatcher if dynamic is None else dynamic_patcher_without_a_gpu(dynamic)

    def hold(module: Any, load_device: Any, offload: Any) -> Any:
        return patcher_class(module, load_device=device, offload_device=offload)

    theirs, nodes.host.hold = nodes.host.hold, hold
    matrices: list[Any] = []
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = fp8_file(nodes, folder)
            plain = nodes.sockets.model.WanModel(loaded(nodes, path))
            dequantized = lib(nodes, "weights").load_transformer(path, torch.float32, unpack=True)

            def put_on_and_off(seed: int) -> None:
                found = lora_file(nodes, dequantized, folder, seed)
                matrices.extend(weakref.ref(tensor) for delta in found.deltas.values() for tensor in delta.tensors())
                model = plain.with_lora(found, 0.5)
                for patcher in model.get_models():
                    patcher.partially_load(device, 1 << 40)

            def held() -> int:
                gc.collect()
                plain.patcher.partially_load(device, 1 << 40)
                kept = len(getattr(plain.patcher, "backup_buffers", {}))
                getattr(plain.patcher, "restore_loaded_backups", plain.patcher.unpatch_model)()
                return kept + len([*plain.transformer.buffers()])

            before = held()
            for number in range(10):
                put_on_and_off(number)
                assert held() == before, f"{held()} buffers after LoRA {number + 1}, {before} before the first"
            left = sum(matrix() is not None for matrix in matrices)
            assert not left, f"{left} of {len(matrices)} matrices are still in memory"
    finally:
        nodes.host.hold = theirs
    return f"{len(matrices)} matrices of ten LoRAs gone, {'plain' if dynamic is None else 'dynamic'} patcher"


def dynamic_patcher_without_a_gpu(dynamic: Any) -> Any:
    """Core's patcher for a CPU, which it refuses, without a GPU's address space and pinned memory."""
    from types import SimpleNamespace

    class NoCard(dynamic):
        def __new__(cls, *args: Any, **options: Any) -> Any:
            return object.__new__(cls)

        def register_load_device(self, device: Any) -> None:
            empty = {name: (SimpleNamespace(size=0), [], [-1], [0], [0], {}) for name in PINS}
            state = {**empty, "hostbufs_initialized": True, "failed": False, "active": False, "current_prompt": False}
            self.model.dynamic_pins.setdefault(device, state)

        def _vbar_get(self, create: bool = False) -> None:
            return None

    return NoCard
