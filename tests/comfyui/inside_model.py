"""WAN_FLF2V_MODEL: our transformer beside core's, and in the care of core's memory management; inside ComfyUI's
interpreter."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from inside_checks import apart, check, lib

HEAD = 128  # core knows no other head width
TEXT, IMAGE, ROWS = 4096, 1280, 514  # nor other encoders


def small_transformer(nodes: Any, **sizes: int) -> Any:
    """Random weights, large enough that nothing vanishes."""
    import torch

    config = lib(nodes, "config").TransformerConfig(
        **{
            "dim": 2 * HEAD,
            "ffn_dim": 320,
            "num_heads": 2,
            "num_layers": 3,
            "text_dim": TEXT,
            "image_dim": IMAGE,
            "image_tokens": ROWS,
            **sizes,
        }
    )
    torch.manual_seed(0)
    model = lib(nodes, "model").WanTransformer(config, operations=nodes.host.Operations)
    for name, parameter in model.named_parameters():
        spread = 0.4 if "modulation" in name or "emb_pos" in name else 1.2 * parameter[0].numel() ** -0.5
        torch.nn.init.normal_(parameter, mean=1.0 if "norm" in name and name.endswith("weight") else 0.0, std=spread)
    return model.requires_grad_(False).eval()


def inputs(batch: int = 1, frames: int = 3, side: int = 6, rows: int = ROWS) -> tuple[Any, ...]:
    import torch

    torch.manual_seed(1)
    latents, timestep = torch.randn(batch, 36, frames, side, side + 2), torch.full((batch,), 873.0)
    text = torch.randn(1, 512, TEXT)
    text[:, 40:] = 0.0
    return latents, timestep, text.expand(batch, -1, -1), torch.randn(1, rows, IMAGE).expand(batch, -1, -1)


@check
def the_transformer_agrees_with_the_one_core_loads_from_the_same_file(nodes: Any) -> str:
    import comfy.sd
    import torch
    from safetensors.torch import save_file

    ours = small_transformer(nodes)
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, "flf2v.safetensors"))
        save_file({f"model.diffusion_model.{name}": value for name, value in ours.state_dict().items()}, path)
        core = comfy.sd.load_diffusion_model(path, model_options={"dtype": torch.float32})
        again = lib(nodes, "weights").load_transformer(path, operations=nodes.host.Operations)
    assert type(core.model).__name__ == "WAN21", type(core.model)
    comfy.model_management.load_models_gpu([core])
    worst = 0.0
    for batch, frames, side in ((1, 3, 6), (2, 2, 4), (1, 1, 8)):
        latents, timestep, text, image = inputs(batch, frames, side)
        noise, condition = latents[:, :16], latents[:, 16:]
        sigma = timestep / 1000.0
        with torch.no_grad():
            denoised = core.model.apply_model(noise, sigma, c_concat=condition, c_crossattn=text, clip_fea=image)
            theirs = (noise - denoised) / sigma.view(-1, 1, 1, 1, 1)
            for model in (ours, again):
                worst = max(worst, apart(model(latents, timestep, text, image), theirs))
    assert worst <= 1e-4, worst
    return f"relative difference to core's apply_model {worst:.1e}"


def resident(nodes: Any, model: Any, budget: int) -> Any:
    """``model`` in core's patcher, with room for ``budget`` bytes of weights only."""
    import torch

    patcher = nodes.host.hold(model, torch.device("cpu"), torch.device("cpu"))
    patcher.load(torch.device("cpu"), lowvram_model_memory=budget)
    return patcher


@check
def a_model_that_is_half_offloaded_gives_the_same(nodes: Any) -> str:
    import torch

    model = small_transformer(nodes)
    with torch.no_grad():
        whole = model(*inputs())
        patcher = resident(nodes, model, sum(p.nbytes for p in model.parameters()) // 2)
        assert model.model_lowvram
        kept = model.model_loaded_weight_memory / patcher.model_size()
        assert 0.05 < kept < 0.95, kept
        half = model(*inputs())
    assert torch.equal(whole, half)
    return f"{100 * kept:.0f} % of the weights loaded, the result is bit for bit that of the whole model"


@check
def compiled_blocks_on_the_hosts_layers_give_the_same(nodes: Any) -> str:
    """Half of the weights are where the host fetches them from at use, and norms are the host's own."""
    import shutil

    import torch

    if torch.__version__ < "2.6" or not shutil.which("g++"):
        return "not tried: torch 2.5 takes minutes to compile this, and without a compiler nothing is compiled"
    model, told = small_transformer(nodes), []
    with torch.inference_mode(), lib(nodes, "notices").listening(told.append):
        before = model(*inputs())
        lib(nodes, "compiled").compile_blocks(model)
        after = model(*inputs())
        resident(nodes, model, sum(p.nbytes for p in model.parameters()) // 2)
        half = model(*inputs())
    assert len(told) == 1, told
    assert "being compiled" in told[0], told
    worst = max(apart(after, before), apart(half, before))
    assert 0 < worst <= 1e-5, worst
    return f"one graph, whole and half offloaded; relative difference {worst:.1e}"


def lora_file(nodes: Any, model: Any, folder: str, seed: int = 3) -> Any:
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(seed)
    tensors = {"diffusion_model.blocks.1.diff_m": torch.randn(model.blocks[1].modulation.shape)}
    for layer in ("self_attn.q", "cross_attn.v_img", "ffn.2"):
        for block in range(3):
            out_dim, in_dim = model.get_submodule(f"blocks.{block}.{layer}").weight.shape
            name = f"lora_unet__blocks_{block}_{layer.replace('.', '_')}"
            tensors |= {f"{name}.lora_down.weight": torch.randn(4, in_dim) * 0.1}
            tensors |= {f"{name}.lora_up.weight": torch.randn(out_dim, 4) * 0.1, f"{name}.alpha": torch.tensor(2.0)}
    tensors["diffusion_model.blocks.0.ffn.0.diff_b"] = torch.randn(model.blocks[0].ffn[0].bias.shape)
    kernel = model.patch_embedding.weight.flatten(1)  # as a matrix, as some extractors write it
    tensors["diffusion_model.patch_embedding.diff"] = torch.randn(kernel.shape) * 0.05
    path = str(Path(folder, f"lora_{seed}.safetensors"))
    save_file(tensors, path)
    shapes = {name: tuple(value.shape) for name, value in model.named_parameters()}
    return lib(nodes, "lora").read(path, shapes)


@check
def a_lora_on_the_wire_equals_one_merged_whole_and_offloaded(nodes: Any) -> str:
    import torch

    grid = lib(nodes, "shapes").Grid(frames=9, height=48, width=64)
    plain = nodes.sockets.model.WanModel(small_transformer(nodes))
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        found = lora_file(nodes, plain.transformer, folder)
        assert not found.unmatched
        before = plain.load(grid)(*inputs())
        merged = small_transformer(nodes)
        lib(nodes, "lora").merge(merged, [(found, 0.6), (found, 0.2)])
        expected = merged(*inputs())
        chained = plain.with_lora(found, 0.6).with_lora(found, 0.2)
        worst = apart(chained.load(grid)(*inputs()), expected)
        assert apart(expected, before) > 0.05
        assert torch.equal(plain.load(grid)(*inputs()), before), "the LoRA stayed on the model it was taken off"
        worst = max(worst, apart(chained.load(grid)(*inputs()), expected))
        again = plain.with_lora(found, 0.8)  # while the first is loaded, as a graph that runs again has it
        told_by = lib(nodes, "weights.experts").TOLD_BY
        assert torch.equal(plain.parameter(told_by), small_transformer(nodes).get_parameter(told_by))
        worst = max(worst, apart(again.load(grid)(*inputs()), expected))
        nodes.host.management.unload_all_models()

        fresh = nodes.sockets.model.WanModel(small_transformer(nodes)).with_lora(found, 0.8)
        fresh.patcher.patch_model(torch.device("cpu"), lowvram_model_memory=fresh.patcher.model_size() // 2)
        assert fresh.transformer.lowvram_patch_counter > 0
        offloaded = apart(fresh.transformer(*inputs()), expected)
    assert max(worst, offloaded) <= 1e-4, (worst, offloaded)
    return f"relative difference to the merged model: {worst:.1e} loaded, {offloaded:.1e} half offloaded"


@check
def what_the_host_took_off_between_two_clips_comes_again_with_its_loras(nodes: Any) -> None:
    """As the encoders of a chain's next clip do, where not all models fit together."""
    import torch

    grid, denoiser = lib(nodes, "shapes").Grid(frames=9, height=48, width=64), lib(nodes, "denoiser")
    latents, _, text, image = inputs()
    cond = lib(nodes, "sampling").Cond(condition=latents[:, 16:], text=text, image=image)
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        plain = nodes.sockets.model.WanModel(small_transformer(nodes))
        model = plain.with_lora(lora_file(nodes, plain.transformer, folder), 0.6)
        denoisers = model.denoisers(grid)
        clips = []
        for _ in range(2):
            clips.append(denoiser.velocity_of(denoisers, [cond], 1.0)(latents[:, :16], 873.0))
            nodes.host.management.free_memory(1e30, torch.device("cpu"))
    assert torch.equal(*clips), apart(clips[1], clips[0])


@check
def room_is_made_for_what_is_approximated_of_both_experts(nodes: Any) -> None:
    grid = lib(nodes, "shapes").Grid(frames=81, height=720, width=1280)
    sparse, socket = lib(nodes, "approximations").Approximations(sparse=0.3), nodes.sockets.model
    high, low = (socket.WanModel(small_transformer(nodes, image_dim=0, image_tokens=0)) for _ in range(2))
    low.transformer.get_parameter(lib(nodes, "weights.experts").TOLD_BY).add_(1.0)  # another one
    asked: list[int] = []
    real, nodes.host.load = nodes.host.load, lambda patcher, work=0, **how: asked.append(work)
    try:
        high.with_approximations(sparse).load(grid)
        pair = nodes.sockets.model_experts.ExpertsModel(high, low, 0.9).with_approximations(sparse)
        for each in pair.denoisers(grid):
            each.transformer.come()
    finally:
        nodes.host.load = real
    assert asked[0] == asked[1] == asked[2], asked


@check
def stop_is_seen_between_two_layers(nodes: Any) -> None:
    model = nodes.sockets.model.WanModel(small_transformer(nodes))
    management = nodes.host.management
    seen = []

    def press_stop(*_: Any) -> None:
        seen.append(1)
        management.interrupt_current_processing()

    model.transformer.blocks[1].register_forward_hook(press_stop)
    try:
        model.transformer(*inputs())
    except management.InterruptProcessingException:
        pass
    else:
        raise AssertionError("the forward went on to its end")
    assert seen == [1]
