"""The Wan2.1 transformer: noisy latents, a timestep, text and image embeddings in; velocity out.

Mathematics only, on one device: no storage, no caches, no offload. Parameter names are those of the official
checkpoint, so its weights load without renaming. Follows Wan2.1 ``wan/modules/model.py``; reading order:
this file, ``blocks.py``, ``rope.py``, ``embeddings.py``, ``norms.py``.

B batch, C channels, T,h,w latent frames/height/width, L video tokens, S text embeddings, D width, N heads,
K head width.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from ..attention import Attend, Sparse, SparseAttention, choose
from ..config import TransformerConfig
from ..operations import Operations
from ..shapes import latent_frames
from ..tf32 import exact_convolutions
from .blocks import Block, Context, Head
from .embeddings import ImageEmbedding, embed_text, embed_time, sinusoid
from .inputs import check_latents, check_text, check_timestep, paired_image
from .nag import Nag
from .norms import compute_dtype
from .rope import rope_table
from .sequence import Sequence, Whole
from .token_order import TokenOrder


class WanTransformer(nn.Module):
    """Predicts the velocity ``noise - x0`` of a video in latent space.

    Args:
        config: sizes; also says whether there is an image branch and learned image positions.
        operations: gives ``Linear, LayerNorm, RMSNorm, Conv3d``. Any namespace but ``torch.nn`` must give
            layers that compute in the dtype of their input, whatever their weights are stored in.
        attend: attention kernel ``(q, k, v) -> out``, all ``[B, L, N, K]``; None takes the best one here.
        compute_dtype: what linears and attention run in; None follows autocast, else the weights' own dtype.
            Set it only with ``operations`` that cast (fp8 or packed weights), where the weights do not tell.

    May be built under ``torch.device("meta")`` and filled with ``load_state_dict(..., assign=True)``.
    """

    def __init__(
        self,
        config: TransformerConfig,
        operations: Operations = torch.nn,
        attend: Attend | None = None,
        *,
        compute_dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.attend = choose("auto") if attend is None else attend
        self.compute_dtype = compute_dtype
        self.compiled = False  # whether compiled.compile_blocks has had it
        dim, linear = config.dim, operations.Linear
        self.patch_embedding = operations.Conv3d(
            config.in_dim, dim, kernel_size=config.patch_size, stride=config.patch_size
        )
        self.text_embedding = nn.Sequential(linear(config.text_dim, dim), nn.GELU(approximate="tanh"), linear(dim, dim))
        self.time_embedding = nn.Sequential(linear(config.freq_dim, dim), nn.SiLU(), linear(dim, dim))
        self.time_projection = nn.Sequential(nn.SiLU(), linear(dim, 6 * dim))
        if config.has_image_branch:
            self.img_emb = ImageEmbedding(config, operations)
        self.blocks = nn.ModuleList(Block(config, operations) for _ in range(config.num_layers))
        self.head = Head(config, operations)

    def forward(
        self,
        latents: Tensor,
        timestep: Tensor,
        text: Tensor,
        image: Tensor | None = None,
        sequence: Sequence | None = None,
        *,
        image_row: int | None = None,
        riflex: bool = False,
        nag: Nag | None = None,
        sparse: Sparse | None = None,
        attend: Attend | None = None,
    ) -> Tensor:
        """One look at the clip.

        Args:
            latents: ``[B, in_dim, T, h, w]``: noise, then mask and image latents if the model has them.
            timestep: ``[B]`` float32 or integer, 0..1000.
            text: ``[B, S, text_dim]`` text embeddings, zero behind the prompt. All S attend, so S
                should be ``config.text_len``, the length of training.
            image: ``[B, rows, image_dim]`` image embeddings; None for a model without image branch. With
                learned positions both images, first then last, also as ``[2 B, rows / 2, image_dim]``. No rows at all
                where the model is to see no image.
            sequence: how several GPUs share the tokens; each gets the whole inputs and the whole velocity. None for
                one GPU.
            image_row: where ``image`` is one of the two images alone, its first row among the learned positions: 0, or
                half of them for the last image. None where it is both.
            riflex: turn time slower in clips longer than those of training, see :func:`.rope.axis_angles`.
            nag: what the attention to the text keeps away from; None for nothing.
            sparse: sparse attention of the tokens among themselves, if the clip is long enough; None for all of it.
            attend: attention kernel in the place of the model's own; None for that.

        Returns:
            velocity ``[B, out_dim, T, h, w]`` fp32.

        Raises:
            InputError: a shape or dtype the model can't take.
        """
        batch = latents.shape[0]
        check_latents(latents, self.config)
        check_timestep(timestep, batch)
        check_text(text, batch, self.config)
        if nag is not None:
            check_text(nag.text, batch, self.config)
        image = paired_image(image, batch, self.config, image_row)

        sequence = Whole() if sequence is None else sequence
        tokens, grid = self.patchify(latents)
        length = tokens.shape[1]
        attend = self.attend if attend is None else attend
        among_tokens, order = attend, TokenOrder(grid)
        if sparse is not None and sparse.is_for(length):
            order = TokenOrder(grid, {frame // self.config.patch_size[0] for frame in sparse.given})
            among_tokens = SparseAttention(attend, sparse.tau, order.front)
        tokens = sequence.shard(order.put(tokens, dim=1), dim=1)
        trained = latent_frames(self.config.trained_frames) // self.config.patch_size[0] if riflex else 0
        angles = rope_table(grid, self.config.head_dim, tokens.device, trained)
        rope = sequence.shard(order.put(angles, dim=0), dim=0)
        sinusoids = sinusoid(timestep, self.config.freq_dim).to(tokens.device)
        time, block_time = embed_time(sinusoids, self.time_embedding, self.time_projection)
        kernels = attend, sequence.attention(among_tokens, length)
        context = self.make_context(block_time, text, image, rope, kernels, image_row or 0, nag)
        for block in self.blocks:
            tokens = block(tokens, context)
        patches = sequence.gather(self.head(tokens, time), length, dim=1)
        return self.unpatchify(order.undo(patches, dim=1), grid)

    def make_context(
        self,
        time: Tensor,
        text: Tensor,
        image: Tensor | None,
        rope: Tensor,
        kernels: tuple[Attend, Attend],
        image_row: int = 0,
        nag: Nag | None = None,
    ) -> Context:
        """Everything the blocks read besides the tokens; text and image embeddings go in apart and stay apart. Of the
        kernels the first reads those, the second the tokens."""
        attention: Any = self.blocks[0].self_attn
        dtype = self.dtype_of(attention.q, time.device)
        text_dtype = self.dtype_of(self.text_embedding[0], time.device)
        text = embed_text(text, self.text_embedding, text_dtype)
        if nag is not None:
            nag = replace(nag, text=embed_text(nag.text, self.text_embedding, text_dtype).to(dtype))
        if image is not None:
            embedding: Any = self.img_emb
            image = embedding(image, self.dtype_of(embedding.proj[1], time.device), image_row).to(dtype)
        return Context(
            time=time,
            text=text.to(dtype),
            image=image,
            rope=rope,
            dtype=dtype,
            attend=kernels[0],
            attend_tokens=kernels[1],
            nag=nag,
        )

    def dtype_of(self, layer: Any, device: torch.device) -> torch.dtype:
        """What ``layer`` runs in; layers of one model may differ (some files keep embeddings in float32)."""
        return self.compute_dtype or compute_dtype(layer, device)

    def patchify(self, latents: Tensor) -> tuple[Tensor, tuple[int, int, int]]:
        """``[B, C, T, h, w]`` -> tokens ``[B, L, D]`` fp32 and how many lie along each axis."""
        dtype = self.dtype_of(self.patch_embedding, latents.device)
        with exact_convolutions:  # in float32 TF32 would be the largest error of the model: 2e-4
            patches = self.patch_embedding(latents.to(dtype))  # [B, D, t, h', w']
        t, h, w = patches.shape[2:]
        # fp32: the tokens are a running sum over all blocks, which half precision would wear away.
        return rearrange(patches, "b d t h w -> b (t h w) d").float().contiguous(), (t, h, w)

    def unpatchify(self, patches: Tensor, grid: tuple[int, int, int]) -> Tensor:
        """``[B, L, cells * C]`` (channels innermost) -> ``[B, C, T, h, w]``."""
        sizes = dict(zip(("t", "h", "w", "pt", "ph", "pw"), (*grid, *self.config.patch_size), strict=True))
        return rearrange(patches, "b (t h w) (pt ph pw c) -> b c (t pt) (h ph) (w pw)", **sizes)
