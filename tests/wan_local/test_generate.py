"""The pipeline: F frames in, F frames out, repeatable, checked before anything long, told step by step."""

from __future__ import annotations

import pytest
import torch
from transformers import CLIPVisionConfig, CLIPVisionModel

from wan_local import conditioning
from wan_local.config import TransformerConfig, VAEConfig
from wan_local.denoiser import Denoiser, pair_of
from wan_local.encoders.image import ImageEncoder
from wan_local.errors import Cancelled, InputError, NumericError, WrongModel
from wan_local.generate import Pipeline
from wan_local.images import view
from wan_local.keyframes import Keyframe
from wan_local.model import WanTransformer
from wan_local.notices import WanNotice, listening
from wan_local.progress import Progress
from wan_local.settings import Settings, published_negative_prompt
from wan_local.vae import WanVAE

TEXT_LEN, TEXT_DIM, IMAGE_DIM = 8, 12, 16


class Words:
    """Stands for the text encoder: each prompt gets embeddings of its own; what was asked is kept."""

    def __init__(self, width: int = TEXT_DIM) -> None:
        self.asked: list[str] = []
        self._width = width

    def encode(self, prompts: list[str]) -> torch.Tensor:
        self.asked = list(prompts)
        seeds = [sum(map(ord, prompt)) for prompt in prompts]
        drawn = (torch.Generator().manual_seed(seed) for seed in seeds)
        return torch.stack([torch.randn(TEXT_LEN, self._width, generator=each) for each in drawn])


def make_pipeline(**sizes: int) -> Pipeline:
    """Random weights of these sizes of a transformer; the encoders are as wide as it takes them."""
    torch.manual_seed(0)
    config = TransformerConfig(**{
        "dim": 24, "ffn_dim": 32, "num_heads": 2, "num_layers": 2, "text_dim": TEXT_DIM, "freq_dim": 16,
        "image_dim": IMAGE_DIM, "image_tokens": 10, "text_len": TEXT_LEN, **sizes,
    })  # fmt: skip
    transformer = WanTransformer(config).eval()
    for parameter in transformer.parameters():  # official starting weights end in zeros: nothing would matter
        torch.nn.init.normal_(parameter, std=0.3)
    eyes = CLIPVisionModel(
        CLIPVisionConfig(
            hidden_size=config.image_dim or IMAGE_DIM, intermediate_size=16, num_hidden_layers=2,
            num_attention_heads=2, image_size=32, patch_size=16,
        )
    ).eval()  # fmt: skip
    vae = WanVAE(VAEConfig(dim=4, num_res_blocks=1)).eval()
    return Pipeline([Denoiser(transformer=transformer)], vae, Words(config.text_dim), ImageEncoder(eyes))


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return make_pipeline()


def image(height: int = 32, width: int = 48, seed: int = 1) -> torch.Tensor:
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed))


FIRST, LAST = image(seed=1), image(seed=2)
QUICK = {"length": 5, "steps": 2, "seed": 7}


def test_what_is_for_a_low_noise_expert_is_told_where_there_is_none(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no second condition is encoded for it; two experts take it without a word."""
    encodes, told, real = [], [], conditioning.known_frames
    monkeypatch.setattr(conditioning, "known_frames", lambda *given, **how: encodes.append(1) or real(*given, **how))
    one, two = ([Keyframe(images=LAST[None], frame=-1, low_noise_strength=low, name="the end")] for low in (None, 0.0))

    def made(denoisers: list[Denoiser], ends: list[Keyframe], **more: float) -> torch.Tensor:
        encodes.clear()
        run = Pipeline(denoisers, pipeline.vae, pipeline.text_encoder, pipeline.image_encoder)
        with listening(told.append):
            return run.generate(FIRST, None, "a disc", Settings(**QUICK, **more), keyframes=ends).latents

    single = list(pipeline.denoisers)
    plain = made(single, one)
    assert (len(encodes), told) == (1, [])
    assert torch.equal(made(single, two, low_noise_guidance=1.0), plain)
    assert len(encodes) == 1
    (line,) = told
    assert "no low-noise expert, so low_noise_guidance=1 and low_noise_strength=0 of the end can change nothing" in line
    told.clear()
    transformer = pipeline.transformer
    assert not torch.equal(made(pair_of(transformer, transformer, 0.99), two, low_noise_guidance=1.0), plain)
    assert (len(encodes), told) == (2, [])


@pytest.mark.parametrize("length", [5, 9, 17])
def test_as_many_frames_come_out_as_were_asked_for(pipeline: Pipeline, length: int) -> None:
    frames = pipeline(FIRST, LAST, "a disc", length=length, steps=1, seed=0)
    assert frames.shape == (length, 32, 48, 3)
    assert frames.dtype == torch.float32
    assert frames.device.type == "cpu"
    assert frames.min() >= 0
    assert frames.max() <= 1


def test_same_seed_same_latents_and_everything_asked_matters(pipeline: Pipeline) -> None:
    def made(first: torch.Tensor = FIRST, last: torch.Tensor = LAST, prompt: str = "a disc", **other: object):
        return pipeline.generate(first, last, prompt, Settings(**{**QUICK, **other})).latents

    base = made()
    assert torch.equal(base, made())
    different = {
        "seed": made(seed=8),
        "prompt": made(prompt="a square"),
        "negative prompt": made(negative_prompt="a square"),
        "guidance": made(guidance=2.0),
        "shift": made(shift=3.0),
        "steps": made(steps=3),
        "sampler": made(sampler="euler"),
        "swapped images": made(LAST, FIRST),
        "last image": made(last=image(seed=3)),
    }
    for name, latents in different.items():
        assert not torch.allclose(base, latents, atol=1e-4), f"{name} changed nothing"


def test_drawn_seed_is_reported_and_repeats_the_run(pipeline: Pipeline) -> None:
    drawn = pipeline.generate(FIRST, LAST, "a disc", Settings(length=5, steps=2))
    again = pipeline.generate(FIRST, LAST, "a disc", Settings(length=5, steps=2, seed=drawn.settings.seed))
    assert drawn.settings.seed >= 0
    assert torch.equal(drawn.latents, again.latents)
    assert Settings().with_seed() != Settings().with_seed()


def test_latents_leave_before_the_decode(pipeline: Pipeline) -> None:
    sampled = pipeline.generate(FIRST, LAST, "a disc", Settings(**QUICK))
    assert sampled.latents.shape == (1, 16, 2, 4, 6)
    assert sampled.latents.device.type == "cpu"
    assert set(sampled.seconds) == {"encode text", "encode images", "sample"}
    chunks = list(pipeline.decode_stream(sampled))
    assert [len(chunk) for chunk in chunks] == [1, 4]
    assert torch.equal(torch.cat(chunks), pipeline.decode(sampled))
    assert torch.equal(pipeline.decode(sampled), pipeline(FIRST, LAST, "a disc", **QUICK))


def test_negative_prompt_is_the_official_one_unless_given() -> None:
    pipeline = make_pipeline()
    pipeline(FIRST, LAST, "a disc", **QUICK)
    assert pipeline.text_encoder.asked == ["a disc", published_negative_prompt()]
    pipeline(FIRST, LAST, "a disc", negative_prompt="", **QUICK)
    assert pipeline.text_encoder.asked == ["a disc", ""]
    # "cut of the lens, shaking of the lens, garish colours": the two additions, then the shared text
    start = "\u955c\u5934\u5207\u6362\uff0c\u955c\u5934\u6643\u52a8\uff0c\u8272\u8c03\u8273\u4e3d\uff0c"
    assert published_negative_prompt().startswith(start)
    assert published_negative_prompt().endswith("\u5012\u7740\u8d70")


def test_guidance_one_takes_one_forward_a_step() -> None:
    pipeline = make_pipeline()
    calls: list[float] = []
    pipeline.transformer.register_forward_pre_hook(lambda module, args: calls.append(float(args[1])))
    pipeline(FIRST, LAST, "a disc", length=5, steps=3, seed=0, guidance=1.0)
    assert len(calls) == 3
    assert pipeline.text_encoder.asked == ["a disc"]
    calls.clear()
    pipeline(FIRST, LAST, "a disc", length=5, steps=3, seed=0, guidance=5.5)
    assert len(calls) == 6


def test_what_the_transformer_is_given() -> None:
    pipeline = make_pipeline()
    seen: list[tuple[torch.Tensor, ...]] = []
    pipeline.transformer.register_forward_pre_hook(lambda module, args: seen.append(args))
    pipeline(FIRST, LAST, "a disc", **QUICK)
    latents, timestep, text, image = seen[0]
    assert latents.shape == (1, 36, 2, 4, 6)
    assert latents[0, 16:20, :, 0, 0].tolist() == [[1, 0], [1, 0], [1, 0], [1, 1]]  # noise first, then the mask
    assert timestep.tolist() == [999.0]
    assert text.shape == (1, TEXT_LEN, TEXT_DIM)
    assert image.shape == (1, 10, IMAGE_DIM)
    rows = pipeline.image_encoder.encode([FIRST * 2 - 1, LAST * 2 - 1])
    assert torch.equal(image[0], torch.cat([rows[0], rows[1]]))  # first, then last, in -1..1
    for other in seen[1:]:  # both sides of the guidance see the same images
        assert torch.equal(other[0][:, 16:], latents[:, 16:])
        assert torch.equal(other[3], image)


def test_image_encoder_sees_what_is_in_the_frame() -> None:
    pipeline = make_pipeline()
    wide = torch.cat([torch.zeros(3, 32, 16), LAST, torch.ones(3, 32, 16)], dim=2)  # crop cuts both sides off
    assert torch.equal(pipeline(FIRST, LAST, "a", **QUICK), pipeline(FIRST, wide, "a", **QUICK))


def test_progress_tells_every_stage_and_may_stop(pipeline: Pipeline) -> None:
    told: list[Progress] = []
    pipeline(FIRST, LAST, "a disc", on_progress=told.append, length=9, steps=3, seed=0)
    assert list(dict.fromkeys(p.stage for p in told)) == ["encode text", "encode images", "sample", "decode"]
    for stage, total in (("encode text", 1), ("encode images", 3), ("sample", 3), ("decode", 3)):
        counts = [(p.done, p.total) for p in told if p.stage == stage]
        assert counts == [(done, total) for done in range(total + 1)]
    assert told[-5].stage == "sample"
    assert told[-5].x0 is not None

    def stop(progress: Progress) -> None:
        if progress.stage == "sample" and progress.done == 1:
            raise Cancelled("stopped")

    calls: list[int] = []
    hook = pipeline.transformer.register_forward_pre_hook(lambda *_: calls.append(1))
    with pytest.raises(Cancelled):
        pipeline(FIRST, LAST, "a disc", on_progress=stop, length=5, steps=9, seed=0)
    hook.remove()
    assert len(calls) == 2  # one step


WRONG = [
    ({"length": 80}, r"length=80 is not 4n\+1; use 77 or 81"),
    ({"length": 1}, "length=1 has no room for a first and a last frame; use 5 or more"),
    ({"length": 0}, "length=0 has no frames"),
    ({"length": "81"}, "length='81' is not a whole number"),
    ({"width": 100}, "width=100 is not a multiple of 16; use 96 or 112"),
    ({"height": 8}, "height=8 is not a multiple of 16; use 16"),
    ({"steps": 0}, "steps=0 can't be used; give a whole number from 1 to 1000"),
    ({"steps": 2.5}, "steps=2.5 can't be used"),
    ({"guidance": float("nan")}, "guidance=nan can't be used"),
    ({"guidance": -1}, "guidance=-1 can't be used; give a number from 0 to 100"),
    ({"shift": 0}, "shift=0 can't be used; give a number above 0"),
    ({"sampler": "heun"}, r"sampler='heun' is not known; use unipc, dpm\+\+, euler"),
    ({"seed": -2}, "seed=-2 can't be used; give a whole number from -1 to 18446744073709551615"),
    ({"seed": 2**64}, "seed=18446744073709551616 can't be used"),
    ({"fit": "zoom"}, "fit='zoom' is not known; use crop, pad, stretch"),
    ({"negative_prompt": 3}, "negative_prompt is int 3; give one text"),
]


@pytest.mark.parametrize(("wrong", "message"), WRONG)
def test_wrong_settings_are_named_before_any_work(wrong: dict[str, object], message: str) -> None:
    pipeline = make_pipeline()
    pipeline.text_encoder.encode = pytest.fail
    with pytest.raises(InputError, match=message) as caught:
        pipeline(FIRST, LAST, "a disc", **wrong)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ((FIRST, "nowhere.png", "a"), r"nowhere\.png is not there"),
        ((torch.zeros(7, 7), LAST, "a"), r"first image has shape \[7, 7\]"),
        ((FIRST, LAST * float("nan"), "a"), "last image has values nan"),
        ((FIRST, LAST, ["a", "b"]), r"prompt is list \['a', 'b'\]; give one text"),
        ((FIRST, LAST, None), "prompt is NoneType None"),
    ],
)
def test_wrong_inputs_are_named_before_any_work(inputs: tuple[object, ...], message: str) -> None:
    pipeline = make_pipeline()
    pipeline.text_encoder.encode = pytest.fail
    with pytest.raises(InputError, match=message):
        pipeline(*inputs, **QUICK)


def test_nan_from_the_model_names_the_step() -> None:
    pipeline = make_pipeline()
    with torch.no_grad():
        pipeline.transformer.head.head.weight.fill_(float("nan"))
    with pytest.raises(NumericError, match="step 1 of 2"):
        pipeline(FIRST, LAST, "a disc", **QUICK)


def test_nan_from_the_decoder_names_the_frame() -> None:
    pipeline = make_pipeline()
    sampled = pipeline.generate(FIRST, LAST, "a disc", Settings(**QUICK))
    with torch.no_grad():
        sampled.latents[:, :, 1] = float("nan")
    with pytest.raises(NumericError, match="decoded frame 1 to NaN"):
        pipeline.decode(sampled)


def test_text_to_video_model_is_refused() -> None:
    config = TransformerConfig(dim=24, ffn_dim=32, num_heads=2, num_layers=1, in_dim=16, image_dim=0, image_tokens=0)
    with pytest.raises(WrongModel, match=r"takes 16 channels and first-last-frame needs 36"):
        Pipeline([Denoiser(transformer=WanTransformer(config))], WanVAE(VAEConfig(dim=4, num_res_blocks=1)), Words())


# -- models of another recipe -------------------------------------------------------------------------------------


def asked(pipeline: Pipeline, **settings: object) -> list[torch.Tensor | None]:
    """The image embeddings that the transformer got at each call."""
    seen = []
    pipeline.transformer.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[3]))
    pipeline.generate(FIRST, LAST, "a disc", Settings(**{**QUICK, "width": 48, "height": 32, **settings}))
    return seen


def test_with_positions_a_model_sees_both_images_and_without_the_first_alone() -> None:
    """As their authors run them: Wan2.1 ``first_last_frame2video.py`` and ``image2video.py``."""
    both, first = make_pipeline(), make_pipeline(image_tokens=0)
    encoder = both.image_encoder
    first.image_encoder = encoder
    images = [view(image, 48, 32, "crop") * 2.0 - 1.0 for image in (FIRST, LAST)]
    rows = encoder.encode(images)  # [2, 5, D]
    assert all(torch.equal(image, rows.flatten(0, 1)[None]) for image in asked(both))
    alone = encoder.encode(images[:1])
    assert len(seen := asked(first)) == 4
    assert all(torch.equal(image, alone) for image in seen)


def test_any_of_the_images_may_be_absent() -> None:
    """The last alone has the second half of the positions; an image in the middle alone is not seen at all."""
    pipeline, seen = make_pipeline(), []
    pipeline.transformer.register_forward_pre_hook(
        lambda module, inputs, options: seen.append((inputs[0][0, 16:20, :, 0, 0].sum(1).tolist(), inputs[3].shape[1],
                                                     options.get("image_row"))),
        with_kwargs=True,
    )  # fmt: skip

    def given(first: torch.Tensor | None, last: torch.Tensor | None, *middle: int) -> tuple[list[float], int, int]:
        keyframes = [Keyframe(images=FIRST[None], frame=frame) for frame in middle]
        settings = Settings(length=9, steps=1, seed=0, guidance=1.0)
        assert pipeline.generate(first, last, "a disc", settings, keyframes=keyframes).grid.width == 48
        return seen[-1]

    assert given(FIRST, None) == ([1, 1, 1, 1], 5, 0)
    assert given(None, LAST) == ([0, 0, 0, 1], 5, 5)
    assert given(FIRST, LAST, 4) == ([1, 1, 1, 3], 10, None)
    assert given(None, None, 5) == ([0, 0, 0, 1], 0, None)
    with pytest.raises(InputError, match="no image is given"):
        given(None, None)


def test_one_of_two_experts_says_so_before_the_first_step() -> None:
    told = []
    with listening(told.append):
        asked(make_pipeline())
        assert told == []
        pipeline = make_pipeline(image_dim=0, image_tokens=0)
        pipeline.image_encoder = None
        pipeline.transformer.register_forward_pre_hook(lambda module, inputs: told.append("a step"))
        assert asked(pipeline, steps=1, guidance=1.0) == [None]
    assert told[1:] == ["a step"]
    assert "one of Wan2.2's two experts and does every step alone" in told[0]
    with pytest.warns(WanNotice, match="two experts"):
        asked(pipeline)
