"""What is connected to CLIP and CLIP_VISION sockets, ours beside core's; inside ComfyUI's interpreter."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from inside_checks import apart, bundled, check, lib
from inside_packed import write_gguf

LLAMA = {
    "shared": "token_embd", "encoder.final_layer_norm": "enc.output_norm", "layer.0.layer_norm": "attn_norm",
    "layer.0.SelfAttention.relative_attention_bias": "attn_rel_b", "layer.0.SelfAttention.q": "attn_q",
    "layer.0.SelfAttention.k": "attn_k", "layer.0.SelfAttention.v": "attn_v", "layer.0.SelfAttention.o": "attn_o",
    "layer.1.layer_norm": "ffn_norm", "layer.1.DenseReluDense.wi_0": "ffn_gate",
    "layer.1.DenseReluDense.wi_1": "ffn_up", "layer.1.DenseReluDense.wo": "ffn_down",
}  # fmt: skip


@check
def core_image_encoder_drives_our_conditioning(nodes: Any) -> str:
    """Core's own class on the weights of the bundled model, against our loading of the same weights."""
    import comfy.clip_vision
    import torch

    folder = bundled(nodes)
    config = json.loads((folder / "image_encoder" / "config.json").read_text("utf-8"))
    config = {key: value for key, value in config.items() if key != "architectures"} | {"projection_dim": 16}
    ours = nodes.loading.load_parts(folder, "fp32", "auto")[2]
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary, "config.json")
        path.write_text(json.dumps(config | {"model_type": "clip_vision_model"}))
        core = comfy.clip_vision.ClipVisionModel(str(path))
    state = {name.removeprefix("inner."): value for name, value in ours.model.state_dict().items()}
    state = {name if name.startswith("vision_model.") else f"vision_model.{name}": v for name, v in state.items()}
    missing, _ = core.load_sd(state)
    assert all("visual_projection" in name or "position_ids" in name for name in missing), missing
    torch.manual_seed(0)
    image = torch.rand(3, 64, 64) * 2.0 - 1.0
    rows = [nodes.sockets.clip_vision.SocketImageEncoder(socket).encode([image, -image]) for socket in (core, ours)]
    assert rows[0].shape == rows[1].shape
    difference = apart(*rows)
    assert difference < 0.05, difference  # core resizes with antialias and rounds to 8 bit
    return f"relative difference of the rows {difference:.1e} (resize kernel, 8 bit)"


@check
def core_text_encoder_drives_our_conditioning(nodes: Any) -> str:
    """Core's umT5 class on the weights of the bundled model; only the tokens are given to it, not its tokenizer."""
    import comfy.text_encoders.t5
    import torch
    from comfy import sd1_clip

    folder = bundled(nodes)
    ours = nodes.loading.load_parts(folder, "fp32", "auto")[1]
    encoder = ours.cond_stage_model.encoder
    config = json.loads((folder / "text_encoder" / "config.json").read_text("utf-8"))
    config |= {"dense_act_fn": "gelu_pytorch_tanh", "is_gated_act": True, "model_type": "umt5"}
    core = sd1_clip.SDClipModel(
        device="cpu", textmodel_json_config=config, dtype=torch.float32, special_tokens={"end": 1, "pad": 0},
        model_class=comfy.text_encoders.t5.T5, enable_attention_masks=True, zero_out_masked=True, layer="last",
    )  # fmt: skip
    state = {name: value.float() for name, value in encoder.model.state_dict().items()}
    missing, _ = core.transformer.load_state_dict(state, strict=False)
    assert not [name for name in missing if "embed_tokens" not in name], missing
    prompt = "a red circle moves over the top"
    ids = encoder.tokenizer(prompt)["input_ids"]
    tokens = [[(token, 1.0) for token in ids + [0] * (encoder.text_len - len(ids))]]
    with torch.no_grad():
        rows = core.encode_token_weights(tokens)[0]
    clip = SimpleNamespace(
        tokenize=lambda text: tokens, encode_from_tokens_scheduled=lambda tokens: [[rows, {"pooled_output": None}]]
    )
    theirs = nodes.sockets.clip.SocketTextEncoder(clip).encode([prompt])
    difference = apart(theirs, nodes.sockets.clip.SocketTextEncoder(ours).encode([prompt]))
    assert difference < 1e-4, difference
    return f"relative difference of the rows {difference:.1e}"


@check
def a_text_encoder_without_room_works_on_the_cpu(nodes: Any) -> None:
    import torch

    clip = nodes.loading.load_parts(bundled(nodes), "fp32", "auto")[1]
    clip.cond_stage_model.float()
    expected = nodes.sockets.clip.SocketTextEncoder(clip).encode(["a red disc"])
    management = nodes.host.management
    activations = lib(nodes, "memory.activations")
    need = clip.patcher.model_size() + activations.TEXT_WORK[4] + activations.RESERVE
    real, free = nodes.host.load, management.get_free_memory
    loads: list[int] = []
    nodes.host.load = lambda patcher, work=0, **how: loads.append(work)
    loaded, management.current_loaded_models = management.current_loaded_models, []
    clip.patcher.load_device = torch.device("meta")  # stands for a GPU
    reserved = management.extra_reserved_memory()
    try:
        # Of what had come before, the host has left a part there.
        left: list[str] = []
        management.current_loaded_models.append(
            SimpleNamespace(device=torch.device("meta"), model=clip.patcher, model_loaded_memory=lambda: 0,
                            model_unload=lambda: left.append("taken off"))
        )  # fmt: skip
        for room, comes in ((need + reserved, 1), (need + reserved - 1, 0)):
            management.get_free_memory = lambda device, room=room: room
            loads.clear()
            rows = nodes.sockets.clip.SocketTextEncoder(clip).encode(["a red disc"])
            assert len(loads) == comes, (room - need, loads)
            assert torch.equal(rows, expected)
        assert left == ["taken off"]
        assert management.current_loaded_models == []
        # What the host would offload for it counts as room.
        management.current_loaded_models = [
            SimpleNamespace(device=torch.device("meta"), model=clip.patcher, model_loaded_memory=lambda: 1)
        ]
        loads.clear()
        nodes.sockets.clip.SocketTextEncoder(clip).encode(["a red disc"])
        assert loads == [need - clip.patcher.model_size()]
    finally:
        nodes.host.load, management.get_free_memory = real, free
        management.current_loaded_models = loaded
        clip.patcher.load_device = torch.device("cpu")


@check
def a_gguf_text_encoder_stands_in_for_the_folders_own(nodes: Any) -> str:
    import folder_paths
    import torch

    pipeline = bundled(nodes)
    own = lib(nodes, "weights").load_text_encoder(pipeline, dtype=torch.float32)
    state = {}
    for name, value in own.model.state_dict().items():
        place = name.removesuffix(".weight")
        number, _, rest = place.removeprefix("encoder.block.").partition(".")
        if name != "encoder.embed_tokens.weight":
            state[f"{LLAMA[place]}.weight" if place in LLAMA else f"enc.blk.{number}.{LLAMA[rest]}.weight"] = value
    packed = {name for name, value in state.items() if value.ndim == 2 and "attn_rel_b" not in name}
    with tempfile.TemporaryDirectory() as folder:
        write_gguf(Path(folder, "umt5.gguf"), "t5encoder", state, packed)
        folder_paths.folder_names_and_paths[nodes.host.GGUF["text_encoders"]] = ([folder], {".gguf"})
        assert "umt5.gguf" in nodes.host.model_files("text_encoders")
        path = nodes.weight_files.path("text_encoders", "text_encoder", "umt5.gguf")
        _, clip, _, _ = nodes.loading.load_parts(pipeline, "default", "sdpa", path)
        network = clip.cond_stage_model.transformer
        assert network.shared.weight.dtype == torch.int8, "the table of words was dequantized"
        text = "an orange circle moves to the right"
        rows = clip.encode_from_tokens_scheduled(clip.tokenize(text))[0][0]
        expected = own.encode([text])
        difference = apart(rows, expected)
        assert difference < 0.05, difference
    return f"Q8_0 in bfloat16 against float32: {difference:.1e}"
