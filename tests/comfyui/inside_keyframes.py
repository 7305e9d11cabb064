"""Keyframes and schedules with core's own nodes and models; inside ComfyUI's interpreter."""

from __future__ import annotations

from typing import Any

from inside_checks import apart, check, lib, refusal
from inside_model import IMAGE, TEXT, small_transformer

SIZE = {"width": 64, "height": 48, "length": 9}


def picture(count: int = 1, seed: int = 0) -> Any:
    import torch

    return torch.rand(count, 48, 64, 3, generator=torch.Generator().manual_seed(seed))


def vae_of(nodes: Any) -> Any:
    return nodes.load_vae.WanFLF2VLoadVAE.execute("nano (bundled)", "default").result[0]


def prompt() -> Any:
    import torch

    text = torch.randn(1, 512, TEXT, generator=torch.Generator().manual_seed(5))
    return [[text, {}]]


def ours(nodes: Any, vae: Any, *keyframes: tuple[Any, ...], **images: Any) -> tuple[Any, Any, Any]:
    """Out of the nodes, connected in a row."""
    row: tuple[Any, ...] = ()
    for image, frame, *strengths in keyframes:
        high, low = [*strengths, 1.0, -1.0][:2] if len(strengths) < 2 else strengths
        row = nodes.keyframe.WanFLF2VKeyframe.execute(image, frame, high, low, row).result[0]
    given = {"fit": "crop", "keyframes": row, **SIZE, **images}
    return nodes.conditioning.WanFLF2VConditioning.execute(prompt(), prompt(), vae, **given).result


def core(vae: Any, **images: Any) -> Any:
    from comfy_extras.nodes_wan import WanFirstLastFrameToVideo

    found = WanFirstLastFrameToVideo.execute(prompt(), prompt(), vae, batch_size=1, **SIZE, **images)
    return found.result if hasattr(found, "result") else found


def same(found: Any, expected: Any) -> None:
    import torch

    (_, values), (_, wanted) = found[0][0], expected[0][0]
    mask = wanted["concat_mask"].expand_as(values["concat_mask"])
    assert torch.equal(values["concat_mask"], mask)
    difference = apart(values["concat_latent_image"], wanted["concat_latent_image"])
    assert difference <= 1e-5, difference


@check
def ends_and_pieces_are_what_core_makes_of_them(nodes: Any) -> None:
    """Its WanFirstLastFrameToVideo takes several images at both ends; sizes that need no resize."""
    vae = vae_of(nodes)
    first, last, clip = picture(seed=1), picture(seed=2), picture(5, seed=3)
    for images in ({"first_image": first, "last_image": last}, {"first_image": first}, {"last_image": last}):
        theirs = {name.replace("first", "start").replace("last", "end"): image for name, image in images.items()}
        same(ours(nodes, vae, **images), core(vae, **theirs))
    same(ours(nodes, vae, (first, 0), (last, -1)), core(vae, start_image=first, end_image=last))
    same(ours(nodes, vae, (clip, 0), last_image=last), core(vae, start_image=clip, end_image=last))
    same(ours(nodes, vae, (clip, -5)), core(vae, end_image=clip))


@check
def strengths_of_two_experts_reach_the_sampler(nodes: Any) -> None:
    import torch

    positive, _, latent = ours(nodes, vae_of(nodes), (picture(), 4, 0.8, 0.2), first_image=picture(seed=1))
    config = small_transformer(nodes, image_dim=0, image_tokens=0).config
    grid, _ = nodes.sockets.latent.clip_of(latent, config)
    cond = nodes.sockets.conditioning.read(positive, "positive", config, grid.latent_shape)
    assert [round(float(each[0, 3, 1, 0, 0]), 3) for each in (cond.condition, cond.low_condition)] == [0.8, 0.2]
    assert torch.equal(cond.condition[:, 4:], cond.low_condition[:, 4:])


def core_model(nodes: Any, transformer: Any) -> Any:
    import comfy.sd
    import torch

    state = {f"model.diffusion_model.{name}": value for name, value in transformer.state_dict().items()}
    return comfy.sd.load_diffusion_model_state_dict(state, model_options={"dtype": torch.float32})


def seen_by_both(nodes: Any, **sizes: int) -> tuple[Any, Any, tuple[Any, Any, Any]]:
    """Our transformer, core's of the same weights, and a clip with a keyframe in the middle."""
    import torch

    transformer = small_transformer(nodes, num_layers=1, **sizes)
    conditioning = ours(
        nodes, vae_of(nodes), (picture(), 4, 0.6, 0.3), first_image=picture(seed=1), last_image=picture(seed=2)
    )
    if sizes.get("image_dim") != 0:
        rows = torch.randn(1, 514, IMAGE, generator=torch.Generator().manual_seed(6))
        output = nodes.host.clip_vision_output(penultimate_hidden_states=rows)
        conditioning = [*(nodes.host.with_values(each, {"clip_vision_output": output}) for each in conditioning[:2]),
                        conditioning[2]]  # fmt: skip
    return transformer, core_model(nodes, transformer), tuple(conditioning)


def our_latents(
    nodes: Any, transformer: Any, conditioning: Any, name: str, sigmas: Any, noise: Any, scale: float
) -> Any:
    import torch

    sampling, denoiser = lib(nodes, "sampling"), lib(nodes, "denoiser")
    positive, negative, latent = conditioning
    grid, _ = nodes.sockets.latent.clip_of(latent, transformer.config)
    conds = [
        nodes.sockets.conditioning.read(each, "positive", transformer.config, grid.latent_shape)
        for each in (positive, negative)
    ]
    velocity = denoiser.velocity_of([denoiser.Denoiser(transformer=transformer)], conds, scale)
    levels = sigmas.tolist()
    with torch.no_grad():
        return sampling.denoise(velocity, noise * levels[0], sampling.sampler_on(name, levels))


@check
def core_samples_its_own_model_with_our_conditioning(nodes: Any) -> str:
    """Core's KSampler with a keyframe in the middle, and SamplerCustomAdvanced with our schedule: as ours on the same
    weights, of Wan2.1 and of an expert."""
    import comfy.sample
    import comfy.samplers
    import torch
    from comfy_extras.nodes_custom_sampler import CFGGuider, Noise_RandomNoise, SamplerCustomAdvanced

    worst = 0.0
    for sizes in ({}, {"image_dim": 0, "image_tokens": 0}):
        transformer, model, (positive, negative, latent) = seen_by_both(nodes, **sizes)
        noise = comfy.sample.prepare_noise(latent["samples"], 3)
        sampling = model.get_model_object("model_sampling")
        sigmas = comfy.samplers.calculate_sigmas(sampling, "simple", 2)
        theirs = comfy.sample.sample(
            model, noise, 2, 2.0, "euler", "simple", positive, negative, latent["samples"], disable_pbar=True, seed=3
        )
        mine = our_latents(nodes, transformer, (positive, negative, latent), "euler", sigmas, noise, 2.0)
        worst = max(worst, apart(theirs, nodes.host.denormalise_latents(mine)))
        for name in ("unipc", "dpm++"):
            sampler, sigmas = nodes.schedule.WanFLF2VSchedule.execute(3, 5.0, name).result
            guider = CFGGuider.execute(model, positive, negative, 2.0)
            guider = getattr(guider, "result", guider)[0]
            found = SamplerCustomAdvanced.execute(Noise_RandomNoise(3), guider, sampler, sigmas, dict(latent))
            theirs = getattr(found, "result", found)[0]["samples"]
            mine = our_latents(nodes, transformer, (positive, negative, latent), name, sigmas, noise, 2.0)
            worst = max(worst, apart(theirs, nodes.host.denormalise_latents(mine)))
        assert torch.isfinite(theirs).all()
    assert worst <= 1e-4, worst
    return f"relative difference to core's samplers {worst:.1e}"


@check
def a_schedule_is_the_published_one_and_may_be_cut(nodes: Any) -> None:
    import torch

    made = lib(nodes, "sampling").make_sampler("unipc", 20, 16.0)
    sampler, sigmas = nodes.schedule.WanFLF2VSchedule.execute(20, 16.0, "unipc").result
    assert torch.equal(sigmas, torch.tensor(made.sigmas, dtype=torch.float32))
    told: list[Any] = []

    def model(x: Any, sigma: Any, **_: Any) -> Any:
        return x * 0.5

    def walk(levels: Any) -> Any:
        return sampler.sampler_function(model, torch.ones(1, 16, 1, 2, 2), levels, {}, told.append)

    walk(sigmas[8:])
    assert [row["i"] for row in told] == list(range(12))
    assert told[0]["x"].eq(1).all()
    assert torch.equal(walk(sigmas[-1:]), torch.ones(1, 16, 1, 2, 2)), "no step at all"
    for bad in (torch.tensor([14.6, 3.0, 0.0]), torch.tensor([0.5, 0.6, 0.0])):
        assert "noise levels that fall from at most 1" in refusal(walk, bad)


@check
def ends_take_every_image_of_a_piece_and_say_what_is_moved(nodes: Any) -> None:
    import torch

    clip, frames, told = picture(5, seed=3), torch.rand(13, 48, 64, 3), []
    row = nodes.keyframe.WanFLF2VKeyframe.execute(clip, 0, 1.0, -1.0, ()).result[0]
    row = nodes.keyframe.WanFLF2VKeyframe.execute(picture(seed=4), 10, 1.0, -1.0, row).result[0]
    with lib(nodes, "notices").listening(told.append):
        repaired = nodes.ends.WanFLF2VEnds.execute(frames, "crop", "exact", 2, False, keyframes=row).result[0]
    assert any("frame 10 is moved to frame 12, the last" in text for text in told), told
    for at in range(5):
        assert torch.equal(repaired[at], clip[at]), at
    assert torch.equal(repaired[12], picture(seed=4)[0])
    long = nodes.keyframe.WanFLF2VKeyframe.execute(clip, 8, 1.0, -1.0, ()).result[0]
    said = refusal(lambda: nodes.ends.WanFLF2VEnds.execute(frames[:12], "crop", "report", 2, False, keyframes=long))
    assert "is a piece of 5 frames from frame 8 on, and the clip ends at frame 11; give fewer images" in said
