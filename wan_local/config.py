"""The sizes of the two networks, as frozen dataclasses. Nothing here touches torch.

A config is read from a ``config.json`` or from the shapes of the weights (``weights/``); the constants below are
the released model's and serve as defaults and as the anchor for tests.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from .shapes import SPATIAL_STRIDE

# Statistics of the Wan2.1 latents, one value a channel. Source: Wan-Video/Wan2.1 wan/modules/vae.py.
WAN_LATENTS_MEAN = (
    -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
    0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921,
)  # fmt: skip
WAN_LATENTS_STD = (
    2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
    3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class TransformerConfig:
    """Sizes of the Wan2.1 transformer.

    Attributes:
        dim: model width ``D``.
        ffn_dim: width inside the feed-forward network.
        num_heads: attention heads ``N``; ``D / N`` is the head width ``K``.
        num_layers: transformer blocks.
        in_dim: latent channels that go in: 16 noise + 4 mask + 16 image latents = 36 for FLF2V and I2V, 16 for T2V.
        out_dim: latent channels that come out.
        text_dim: width of the text encoder's output.
        freq_dim: width of the sinusoidal timestep embedding.
        image_dim: width of the image encoder's output, or 0 for a model without image branch.
        image_tokens: rows of ``img_emb.emb_pos`` (514 for FLF2V: both images), or 0 where there is none (I2V).
        text_len: text embeddings that the model was trained with; shorter prompts are padded with zeros.
        patch_size: latent cells per token ``(t, h, w)``.
        eps: epsilon of all norms but those of ``img_emb`` (which use 1e-5, as the official code does).
        trained_frames: length of the clips it was trained on; decides nothing but how a longer one is made.
    """

    dim: int
    ffn_dim: int
    num_heads: int
    num_layers: int
    in_dim: int = 36
    out_dim: int = 16
    text_dim: int = 4096
    freq_dim: int = 256
    image_dim: int = 1280
    image_tokens: int = 514
    text_len: int = 512
    patch_size: tuple[int, int, int] = (1, 2, 2)
    eps: float = 1e-6
    trained_frames: int = 81

    def __post_init__(self) -> None:
        if self.dim % self.num_heads:
            raise ValueError(f"dim={self.dim} is not divisible by num_heads={self.num_heads}")
        if self.head_dim % 2:
            raise ValueError(f"head width {self.head_dim} is odd; rotary embedding turns pairs")

    @property
    def head_dim(self) -> int:
        """Width ``K`` of one attention head."""
        return self.dim // self.num_heads

    @property
    def has_image_branch(self) -> bool:
        return self.image_dim > 0

    @property
    def images_seen(self) -> int:
        """How many images' embeddings the model was trained with.

        Learned positions tell the first image from the last (Wan2.1 ``wan/first_last_frame2video.py``). Models
        without, I2V and Fun-InP, got the first image's alone (``wan/image2video.py``), and would read those of
        another as more of the first.
        """
        if not self.has_image_branch:
            return 0
        return 2 if self.image_tokens else 1

    def row_of(self, image: int) -> int:
        """The learned position that the embeddings of one of the two images begin with; 0 is the first, 1 the last."""
        return self.image_tokens // 2 * image

    @property
    def is_expert(self) -> bool:
        """Whether it is one of Wan2.2's two: it has image latents and no image branch, and knows high or low noise."""
        return not self.has_image_branch and self.in_dim > self.out_dim


# Wan-AI/Wan2.1-FLF2V-14B-720P, as released.
WAN_FLF2V_14B = TransformerConfig(dim=5120, ffn_dim=13824, num_heads=40, num_layers=40)
# Each of the two experts of Wan-AI/Wan2.2-I2V-A14B, as released.
WAN_EXPERT_14B = replace(WAN_FLF2V_14B, image_dim=0, image_tokens=0)


LatentRGB = tuple[tuple[float, ...], ...]
"""A linear map from normalised latents to red, green and blue in -1..1: a row a channel, and one that is added."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VAEConfig:
    """Sizes of the Wan-VAE.

    Attributes:
        dim: base width (96 in the released model).
        z_dim: latent channels.
        dim_mult: width of each level over ``dim``, finest first.
        num_res_blocks: residual blocks a level in the encoder (the decoder has one more).
        temporal_downsample: for each step from one level to the next, whether time is halved too.
        latents_mean: per channel mean of the latents, ``z_dim`` values.
        latents_std: per channel standard deviation of the latents, ``z_dim`` values.
        upscale: sides of the decoded frames over those of the encoded ones: 2 in decoders that were trained to upscale,
            whose last layer gives ``3 * upscale ** 2`` channels, the colours of that many neighbouring pixels.
        latent_rgb: for previews; empty where the VAE brings no map of its own, as hosts know the released model's.
    """

    dim: int = 96
    z_dim: int = 16
    dim_mult: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: int = 2
    temporal_downsample: tuple[bool, ...] = (False, True, True)
    latents_mean: tuple[float, ...] = WAN_LATENTS_MEAN
    latents_std: tuple[float, ...] = WAN_LATENTS_STD
    upscale: int = 1
    latent_rgb: LatentRGB = ()

    def __post_init__(self) -> None:
        if len(self.temporal_downsample) != len(self.dim_mult) - 1:
            raise ValueError(
                f"{len(self.dim_mult)} levels need {len(self.dim_mult) - 1} temporal_downsample flags, "
                f"got {len(self.temporal_downsample)}"
            )
        if len(self.latents_mean) != self.z_dim or len(self.latents_std) != self.z_dim:
            raise ValueError(
                f"latents_mean and latents_std need z_dim={self.z_dim} values each, "
                f"got {len(self.latents_mean)} and {len(self.latents_std)}"
            )

    @property
    def output_stride(self) -> int:
        """Pixels that one latent cell decodes to, along each side."""
        return SPATIAL_STRIDE * self.upscale


WAN_VAE = VAEConfig()
