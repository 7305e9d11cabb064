"""Images at frames and a prompt to a video: the story in one screen. Start reading here.

``Pipeline.generate`` is the walk of a clip; each line is a room: images, encoders/, conditioning, denoiser,
sampling/, model/, vae/. Reference: Wan-Video/Wan2.1 ``wan/first_last_frame2video.py``.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .approximations import NOTHING, named
from .approximations.run import ApproximatedRun
from .conditioning import conditions, ends_seen, image_embeddings
from .denoiser import Denoiser, approximated_run, before_step, check_run, load_denoisers, needs_negative, velocity_of
from .errors import WrongModel
from .frames import collect, frames_of
from .free_memory import host_has_room
from .images import AnyImage
from .keyframes import Keyframe, both_ends, placed, tell_of_moves
from .lora import Applied, Use, apply, merged_bytes
from .memory import AUTO, NONE, Memory, for_model
from .memory.activations import sparse_work
from .notices import tell
from .parts import EncodesImages, EncodesText, Parts, check_parts, choose_device, default_dtype, text_encoder
from .progress import OnProgress, Progress, ignore
from .sampling import Cond, Model, denoise, initial_noise, lengthened, make_sampler
from .settings import Fit, Recipe, Settings, check_text, published_negative_prompt, recipe_of
from .shapes import TEMPORAL_STRIDE, Grid
from .vae import Autoencoder, WanVAE, decode_dtype
from .weights.experts import LOW, find_pair
from .weights.load import transformer_source
from .weights.sizes import transformer_config


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampled:
    """What sampling leaves: enough to decode later, so that a failed decode loses nothing.

    Attributes:
        latents: ``[1, 16, T, h, w]`` float32 on the CPU, model space.
        settings: of the run, with the seed that was drawn.
        grid: size of the clip.
        seconds: how long each stage took.
        approximated: what was not calculated in full, and what that saved, for a person; "exact" for nothing.
    """

    latents: Tensor
    settings: Settings
    grid: Grid
    seconds: dict[str, float] = field(default_factory=dict)
    approximated: str = NOTHING


class Pipeline:
    """A complete first-last-frame model.

    Args:
        denoisers: the models that sample, with 36 input channels; their ranges cover every timestep.
        vae: :class:`wan_local.vae.WanVAE`, in float32 to save a copy when it encodes; or what a host has instead.
        text_encoder: :class:`wan_local.encoders.text.TextEncoder`.
        image_encoder: :class:`wan_local.encoders.image.ImageEncoder`; None for transformers without image branch.
        device: where the work is done.
        memory: which part is on the device when; None leaves every part where it is.
        decode_dtype: what a WanVAE decodes in; it always encodes in float32.

    Raises:
        WrongModel: a transformer that does not take this condition, such as a text-to-video one.
        InputError: ``memory`` offloads more blocks than the transformer has.
    """

    def __init__(
        self,
        denoisers: Sequence[Denoiser],
        vae: WanVAE | Autoencoder,
        text_encoder: EncodesText,
        image_encoder: EncodesImages | None = None,
        *,
        device: torch.device | str = "cpu",
        memory: Memory | None = None,
        decode_dtype: torch.dtype = torch.float32,
    ) -> None:
        self.denoisers, self.vae = tuple(denoisers), vae
        self.text_encoder, self.image_encoder = text_encoder, image_encoder
        self.device = torch.device(device)
        self.decode_dtype = decode_dtype
        self.memory = memory or Memory(device)
        for denoiser in self.denoisers:
            config = denoiser.transformer.config
            self.memory.check(config)
            noise, condition = config.out_dim, TEMPORAL_STRIDE + vae.config.z_dim
            if config.in_dim != noise + condition:
                raise WrongModel(
                    f"the transformer takes {config.in_dim} channels and first-last-frame needs "
                    f"{noise + condition} ({noise} noise, {condition} image condition); use an FLF2V or I2V model"
                )

    @property
    def recipe(self) -> Recipe:
        """The values that the model was published with."""
        return recipe_of(self.transformer.config)

    @property
    def transformer(self) -> Model:
        """The model, or one of two that have the same sizes."""
        return self.denoisers[0].transformer

    @classmethod
    def from_pretrained(
        cls,
        folder: str | PathLike[str],
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        offload: str | int = AUTO,
        cache: str | PathLike[str] | None = None,
        *,
        tiling: str | int = "auto",
        parts: Parts | None = None,
        low: str | PathLike[str] | None = None,
        boundary: float | None = None,
        denoisers: Sequence[Denoiser] | None = None,
        unpack: bool = False,
        float8_matmul: bool = False,
        compiled: bool = False,
        vae_dtype: torch.dtype | None = None,
    ) -> Pipeline:
        """Load every part of a model folder (diffusers or official layout), or parts from files of their own.

        Args:
            folder: holds ``transformer/``, ``vae/``, ``text_encoder/``, ``tokenizer/`` and ``image_encoder/``, or the
                files of the official release. Or one file with a transformer, if ``parts`` name the rest.
            dtype: of the transformer and the encoders, which packed weights are calculated with in; None for what suits
                the device, see :func:`default_dtype`. The VAE's weights are always float32.
            device: None is the GPU if there is one.
            offload: "none" keeps every part on the device. A number lets the parts take turns there, with so many
                transformer blocks in host memory even when it is the transformer's. "auto" takes what fits.
            cache: folder of prompts encoded before; the text encoder is loaded at the first that isn't there. None
                loads it now.
            tiling: side of the VAE's tiles in pixels, "off", or "auto": only where whole frames don't fit.
            parts: where parts are that are not in the folder.
            low: file or folder of Wan2.2's low-noise expert, where ``folder`` is the high-noise one or has the rest.
            boundary: share of the timesteps from which on the high-noise expert works; None is the model's own.
            denoisers: models that are loaded already, such as on several GPUs.
            unpack, float8_matmul: of packed transformer weights, see :func:`wan_local.weights.load_transformer`.
            compiled: compile the transformer's blocks, see :func:`wan_local.compiled.compile_blocks`.
            vae_dtype: what the VAE decodes in; None is bfloat16 on a GPU that calculates in it, else float32.

        Raises:
            InputError: a device that isn't there, or an ``offload`` that can't be.
            WeightsError: a part is missing, broken or of another model.
        """
        from . import weights

        folder, device = Path(folder), choose_device(device)
        if dtype is None:
            dtype = default_dtype(device)
        parts = parts or Parts()
        pair = find_pair(folder, low, boundary) if denoisers is None else None
        if denoisers is None:
            config = transformer_config(transformer_source(folder if pair is None else pair.high))
        else:
            config = denoisers[0].transformer.config
        check_parts(folder, parts, has_images=config.has_image_branch)
        memory = for_model(pair or folder, dtype, device, offload, tiling, unpack=unpack, parts=asdict(parts))
        home = memory.home
        if denoisers is None:
            options = {"dtype": dtype, "device": home, "unpack": unpack, "float8_matmul": float8_matmul}
            denoisers = load_denoisers(folder, pair, compiled=compiled, **options)
        images = parts.image_encoder or folder
        return cls(
            denoisers,
            weights.load_vae(parts.vae or folder, dtype=torch.float32, device=home),
            text_encoder(parts.text_encoder or folder, dtype, memory, cache, parts.tokenizer, tokenizer_of=folder),
            weights.load_image_encoder(images, dtype=dtype, device=home) if config.has_image_branch else None,
            device=device,
            memory=memory,
            decode_dtype=vae_dtype or decode_dtype(device),
        )

    def use_loras(self, uses: Sequence[Use]) -> list[Applied]:
        """Put LoRAs on the models, see :func:`wan_local.lora.apply`; call it once, before the first video.

        Each goes on the experts that it is for. They are merged only where weights rest on the device or the host has
        room for all they change.

        Returns:
            one for each of ``denoisers``.
        """
        for denoiser in self.denoisers:
            own = [use for use in uses if use.expert in (None, denoiser.level)]
            merging = self.memory.offload == NONE and host_has_room(merged_bytes(denoiser.weights, own))
            denoiser.loras = apply(denoiser.weights, own, merging=merging)
        return [denoiser.loras for denoiser in self.denoisers if denoiser.loras is not None]

    def __call__(
        self,
        first: AnyImage | None,
        last: AnyImage | None,
        prompt: str,
        *,
        keyframes: Sequence[Keyframe] = (),
        on_progress: OnProgress = ignore,
        **settings: Any,
    ) -> Tensor:
        """Make a video.

        Args:
            first: image of frame 0: a path, a PIL image or a tensor, see :func:`wan_local.images.to_tensor`; None
                leaves that frame to the model.
            last: image of the last frame, or None.
            prompt: what happens between them.
            keyframes: more images at other frames; one image in all is enough.
            on_progress: called after each unit of work; may raise to stop.
            settings: ``negative_prompt, width, height, length, seed, steps, guidance, low_noise_guidance, shift,
                sampler, fit, motion, longer, approximations``; see :class:`wan_local.settings.Settings`. What is not
                given is the model's own.

        Returns:
            frames ``[F, H, W, 3]`` float32 0..1 on the CPU, exactly ``length`` of them, at the size of the clip times
            the VAE's ``upscale``.

        Raises:
            InputError: anything that can't be used, before anything long starts.
            NumericError: the model gave NaN or infinity.
        """
        chosen = Settings.of(self.recipe, **settings)
        sampled = self.generate(first, last, prompt, chosen, on_progress, keyframes=keyframes)
        return self.decode(sampled, on_progress)

    @torch.no_grad()
    def generate(
        self,
        first: AnyImage | None,
        last: AnyImage | None,
        prompt: str,
        settings: Settings,
        on_progress: OnProgress = ignore,
        *,
        keyframes: Sequence[Keyframe] = (),
    ) -> Sampled:
        """As calling the pipeline, up to the latents; arguments as there."""
        check_text("prompt", prompt)
        settings = settings.with_seed()
        asked = [*both_ends(first, last), *keyframes]
        given = placed(asked, settings.length)
        tell_of_moves(asked, settings.length)
        given = self._as_they_count(given, settings)
        height, width = next(iter(given.values())).images.shape[-2:]
        grid = settings.grid(width, height)
        check_run(settings.approximations, self.denoisers, grid.in_a_forward.tokens, self.device)
        clock = Clock(on_progress)

        clock.start("encode text")
        positive, negative = self._encode_text(prompt, settings)  # [1, S, text_dim] each
        clock.start("encode images", grid.latent_shape[0])
        image, row = self._encode_images(given, grid, settings.fit)
        with self.memory.on_device(self.vae):
            vae = self.memory.vae_for(self.vae, self.decode_dtype)
            # [1, 20, T, h, w] each
            known = conditions(vae, given, grid, fit=settings.fit, motion=settings.motion, on_progress=on_progress)

        clock.start("sample", settings.steps)
        config = self.transformer.config
        conds = [
            Cond(condition=known.each, text=text, image=image, image_row=row, low_condition=known.low).to(self.device)
            for text in (positive, negative)
        ]
        drawn = initial_noise(grid, config.out_dim, settings.seed)
        conds, drawn = lengthened(settings.longer, conds, drawn, config, settings.seed)
        noise = drawn.to(self.device)
        turns = self.memory.turns(grid, sparse_work(config, grid, settings.approximations.sparse))
        denoisers = self._denoisers(settings)

        def sample() -> tuple[Tensor, ApproximatedRun | None]:
            sampler = make_sampler(settings.sampler, settings.steps, settings.shift)  # which has a history
            run = approximated_run(settings.approximations, sampler, denoisers)
            velocity = velocity_of(denoisers, conds, settings.guidance, turns.bring, sampler.timesteps, run)
            told = on_progress if run is None else run.telling(on_progress)
            return denoise(velocity, noise, sampler, told, partial(before_step, self.denoisers)), run

        latents, run = turns.run(sample)
        about = named(settings.approximations) if run is None else run.told()
        return Sampled(latents=latents.cpu(), settings=settings, grid=grid, seconds=clock.stop(), approximated=about)

    def decode(self, sampled: Sampled, on_progress: OnProgress = ignore) -> Tensor:
        """Latents to frames ``[F, H, W, 3]`` float32 0..1 on the CPU."""
        return collect(self.decode_stream(sampled, on_progress), sampled.grid.frames)

    def decode_stream(self, sampled: Sampled, on_progress: OnProgress = ignore) -> Iterator[Tensor]:
        """As :meth:`decode`, but yield one frame first, then four at a time, where they are made."""
        with self.memory.on_device(self.vae):
            vae = self.memory.vae_for(self.vae, self.decode_dtype)
            yield from frames_of(vae, vae.denormalise(sampled.latents.to(self.device)), on_progress)

    def _as_they_count(self, given: dict[int, Keyframe], settings: Settings) -> dict[int, Keyframe]:
        """The images without strengths for a low-noise expert where there is none; a notice about all that is for it.

        No error: a graph that was made for two experts may be run with another model.
        """
        if any(denoiser.level == LOW for denoiser in self.denoisers):
            return given
        guidance, found = settings.low_noise_guidance, [(each.name, each.low_noise_strength) for each in given.values()]
        idle = [] if guidance is None else [f"low_noise_guidance={guidance:g}"]
        idle += [f"low_noise_strength={low:g} of {name}" for name, low in dict.fromkeys(found) if low is not None]
        if idle:
            tell(f"this model has one transformer and no low-noise expert, so {' and '.join(idle)} can change nothing")
        return {frame: replace(keyframe, low_noise_strength=None) for frame, keyframe in given.items()}

    def _denoisers(self, settings: Settings) -> list[Denoiser]:
        """Those of a run: the low-noise one of two may have a guidance scale of its own."""
        own = settings.low_noise_guidance
        if own is None:
            return list(self.denoisers)
        return [replace(each, guidance=own) if each.level == LOW else each for each in self.denoisers]

    def _encode_text(self, prompt: str, settings: Settings) -> tuple[Tensor, Tensor]:
        negative = settings.negative_prompt
        prompts = [prompt, published_negative_prompt(self.recipe) if negative is None else negative]
        if not needs_negative(self._denoisers(settings), settings.guidance, settings.approximations):
            prompts = prompts[:1]
        with self.memory.on_device(self.text_encoder):
            embeddings = self.text_encoder.encode(prompts).to(self.device)
        return embeddings[:1], embeddings[-1:]

    def _encode_images(self, given: Mapping[int, Keyframe], grid: Grid, fit: Fit) -> tuple[Tensor | None, int | None]:
        """Embeddings of both ends, ``[1, N, image_dim]``, and their first learned position if they are not of both."""
        config = self.transformer.config
        images, which = ends_seen(given, grid, config.images_seen)
        if not config.images_seen:
            return None, None
        if not images:
            return torch.zeros(1, 0, config.image_dim, device=self.device), None
        if self.image_encoder is None:
            return None, None
        with self.memory.on_device(self.image_encoder):
            rows = image_embeddings(self.image_encoder, images, grid, fit).to(self.device)
        return rows, config.row_of(which) if len(images) < config.images_seen else None


class Clock:
    """Announces stages and measures them."""

    def __init__(self, on_progress: OnProgress) -> None:
        self._on_progress = on_progress
        self._stage, self._total, self._began = "", 0, 0.0
        self._seconds: dict[str, float] = {}

    def start(self, stage: str, total: int = 1) -> None:
        """End the stage before and begin this one."""
        self.stop()
        self._stage, self._total, self._began = stage, total, time.perf_counter()
        self.tell(0)

    def tell(self, done: int) -> None:
        self._on_progress(Progress(stage=self._stage, done=done, total=self._total))

    def stop(self) -> dict[str, float]:
        """End the last stage; seconds by stage so far."""
        if self._stage:
            self._seconds[self._stage] = time.perf_counter() - self._began
            if self._stage not in ("encode images", "sample"):  # which tell their own ends
                self.tell(self._total)
        self._stage = ""
        return self._seconds
